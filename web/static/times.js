// How long and how long ago, in words. pages/times.html says the same on the server.

function duration(seconds) {
  const two = (n) => String(Math.floor(n)).padStart(2, "0");
  if (seconds < 9.95) return Math.max(0, seconds).toFixed(1) + " s";
  if (seconds < 60) return Math.floor(seconds) + " s";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two((seconds % 3600) / 60)} min`;
}

function about(seconds) {
  if (seconds < 2.5) return "a moment";
  if (seconds < 20) return `about ${Math.round(seconds)} s`;
  if (seconds < 57.5) return `about ${Math.round(seconds / 5) * 5} s`;
  return `about ${Math.round(seconds / 60)} min`;
}

function ago(seconds) {
  if (seconds < 45) return "just now";
  const [size, noun] = [
    [60, "minute", 3570], [3600, "hour", 84600], [86400, "day", 2592000],
    [2629800, "month", 31104000], [31557600, "year", Infinity],
  ].find(([, , below]) => seconds < below);
  const count = Math.max(1, Math.round(seconds / size));
  return `${count > 1 ? count : noun === "hour" ? "an" : "a"} ${noun}${count > 1 ? "s" : ""} ago`;
}
