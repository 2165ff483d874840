// Versions as lines in time, in the lanes of a list: each begins on the line that it was forked from, and carries its snapshots.

const SOON = 60; // seconds: time is even below that age, and by powers beyond, as snapshots are thinned out
const AGES = [[60, "1 min"], [600, "10 min"], [3600, "1 h"], [21600, "6 h"], [86400, "1 day"], [604800, "1 week"], [2629800, "1 month"], [31557600, "1 year"]];
const APART = 46; // px between the names of two ages
const LETTER = 7; // px of one in a snapshot's name, about
const LONGEST = 20; // letters of a name that are shown in the picture

const depth = (age) => Math.log1p(Math.max(0, age) / SOON);

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}

/** Draw into `picture` the lines of `versions`; `lane(version)` is where that one's is, `pick(version, snapshot)` hears clicks. */
function drawLines(picture, versions, now, lane, pick) {
  const frame = picture.parentElement.getBoundingClientRect();
  const rows = new Map();
  for (const version of versions) {
    const box = lane(version).getBoundingClientRect();
    rows.set(version.name, { version, left: box.left - frame.left + 6, right: box.right - frame.left - 9, y: box.bottom - frame.top - 13 });
  }
  picture.setAttribute("width", frame.width);
  picture.setAttribute("height", frame.height);
  const [first] = rows.values();
  if (!first) return picture.replaceChildren();
  const ages = versions.flatMap((version) => [now - version.forked, ...version.snapshots.map(({ at }) => now - at)]);
  const oldest = Math.max(2 * SOON, ...ages) * 1.15;
  const x = (at) => first.right - (first.right - first.left) * Math.min(1, depth(now - at) / depth(oldest));
  picture.replaceChildren(
    svg("g", { class: "ages" }, ...axis(x, now, oldest, first, frame.height)),
    ...[...rows.values()].flatMap((row) => line(row, rows.get(row.version.source), x, now)).reverse(),
    ...[...rows.values()].map((row) => marks(row, x, now, pick)));
}

function axis(x, now, oldest, { left, right }, height) {
  let last = right - 12;
  const parts = [svg("text", { x: right, y: 13, "text-anchor": "end" }, "now")];
  for (const [age, name] of AGES) {
    const at = x(now - age);
    if (age > oldest || last - at < APART || at - left < 20) continue;
    parts.push(svg("text", { x: at, y: 13, "text-anchor": "middle" }, name), svg("path", { d: `M${at} 20V${height}` }));
    last = at;
  }
  return parts;
}

/** From where it was forked to its last use, and faintly on to now. */
function line({ version, right, y }, origin, x, now) {
  const from = x(began(version, origin?.version)), until = version.live ? right : Math.max(from, x(version.used || version.forked));
  const kind = version.production ? "line main" : version.pending ? "line pending" : version.live ? "line live" : "line";
  const bend = origin && Math.min(10, y - origin.y, Math.max(2, right - from));
  return [
    svg("circle", { class: `${kind} end`, cx: right, cy: y, r: version.live ? 5 : 4 }),
    svg("path", { class: kind, d: `M${from + (bend || 0)} ${y}H${Math.max(until, from + (bend || 0))}` }),
    origin ? svg("path", { class: "branch", d: `M${from} ${origin.y}V${y - bend}q0 ${bend} ${bend} ${bend}` })
      : svg("circle", { class: `${kind} root`, cx: from, cy: y, r: 2.5 }),
    svg("path", { class: "line rest", d: `M${from + (bend || 0)} ${y}H${right}` }),
  ];
}

function marks({ version, left, right, y }, x, now, pick) {
  let free = Infinity; // nothing is written right of it
  const newestFirst = version.snapshots.toSorted((a, b) => Boolean(b.name) - Boolean(a.name) || b.at - a.at);
  return svg("g", { class: "marks" }, ...newestFirst.flatMap((snapshot) => { // drawn last to first: names lie over ticks
    const at = Math.min(x(snapshot.at), right - 7), about = svg("title", {}, `${titleOf(snapshot)}, ${ago(now - snapshot.at)}`);
    const mark = snapshot.name ? svg("circle", { class: "mark named", cx: at, cy: y, r: 4.5 }, about)
      : svg("path", { class: "mark", d: `M${at} ${y - 6.5}v13` }, about);
    mark.addEventListener("click", () => pick(version, snapshot));
    const words = snapshot.name.length > LONGEST ? `${snapshot.name.slice(0, LONGEST - 1)}…` : snapshot.name;
    const width = words.length * LETTER, end = Math.min(right, Math.max(at + width / 2, left + width));
    if (!words || end > free - 8) return [mark];
    free = end - width;
    return [mark, svg("text", { class: "name", x: end, y: y - 11, "text-anchor": "end" }, words)];
  }).reverse());
}
