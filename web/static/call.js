// Asking the API for something, and saying how it went.

/** The answer, or an Error with the server's own sentence; without a login, the way to log in. */
async function call(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options).catch(() => { throw new Error("The server did not answer. Is lazycloud up?"); });
  if (answer.status === 401) location.assign("/login?next=" + encodeURIComponent(location.pathname));
  if (answer.ok) return answer;
  const { sentence, advice } = (await answer.json().catch(() => ({}))).error ?? {};
  throw new Error(sentence ? `${sentence} ${advice ?? ""}`.trim() : `The server answered ${answer.status}.`);
}

function toast(text, wrong = false) {
  const note = h("div", { class: wrong ? "toast bad" : "toast", role: wrong && "alert" }, h("p", {}, text),
    h("button", { type: "button", class: "quiet", "data-action": "close" }, "Close"));
  byId("toasts").append(note);
  setTimeout(() => note.remove(), wrong ? 20000 : 6000);
}

document.addEventListener("click", ({ target }) => {
  target.closest('button[data-action="close"]')?.parentElement.remove();
});
