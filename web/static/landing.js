// The landing page: draws the deploy's progress, follows it, and becomes the app when that is ready.

const PLACE = "/.well-known/lazycloud/";
const { progress: first, words, may_cancel: mayCancel } = JSON.parse(byId("data").textContent);
const skew = first.now - Date.now() / 1000; // the server's clock is the one that counts
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const log = new Log(byId("log"), (step) => words[step]?.name ?? step);
let progress = first;
let furthest = 0; // the bar never goes back within an attempt
let drawing = 0;
let leaving = false;
let wasConnected = false;

const now = () => Date.now() / 1000 + skew;
const isWaiting = () => ["cold", "queued", "building", "starting", "restarting"].includes(progress.state);
const isCancelled = () => Boolean(progress.failure?.cancelled_by);

function headline() {
  const running = progress.steps.find(({ state }) => state === "running");
  switch (progress.state) {
    case "cold": return "Waking up";
    case "queued": return progress.ahead
      ? `Waiting for ${progress.ahead === 1 ? "one other deploy" : `${progress.ahead} other deploys`}`
      : "Next in line";
    case "ready": return "Ready. Opening it now";
    case "restarting": return "It ended. Starting it again";
    case "failed": return isCancelled() ? "Cancelled" : words[progress.failure?.step]?.failed ?? "It did not work";
    case "stopping": return "Stopping";
    case "stopped": return "Stopped";
    default: return words[running?.name]?.doing ?? "Getting ready";
  }
}

function outlook({ left, over }) {
  if (!isWaiting() || left == null) return "";
  if (progress.state === "cold" || progress.state === "queued") return `usually takes ${about(left)}`;
  return over ? "longer than usual" : `${about(left)} left`;
}

function stepTime({ state, began, seconds, note }) {
  if (state === "running") return duration(Math.max(0, now() - began));
  if (state === "waiting") return "";
  if (state === "skipped") return note ? "" : "not needed";
  return seconds == null || (state === "reused" && seconds < 0.05) ? "" : duration(seconds);
}

function stepItem(step) {
  const faint = step.state === "waiting" || step.state === "running";
  const note = step.note || (step.state === "reused" ? "reused" : "");
  return h("li", { "data-key": step.name, "data-state": step.state },
    h("span", { class: "glyph", "aria-hidden": "true" }),
    h("span", { class: "name" }, words[step.name]?.name ?? step.name,
      h("span", { class: "unseen" }, `, ${step.state}`)),
    h("span", { class: "note" }, note),
    h("span", { class: "usual" }, faint && step.usual != null ? `usually ${duration(step.usual)}` : ""),
    h("span", { class: "time" }, stepTime(step)));
}

function failureCard(failure) {
  const screen = new Terminal();
  const { done, open } = screen.write(failure.last?.join("\n") ?? "");
  const lines = [...done, ...(open.length ? [open] : [])];
  return [
    h("p", { class: "sentence" }, failure.sentence),
    failure.advice ? h("p", { class: "advice" }, failure.advice) : null,
    lines.length ? h("pre", { class: "last terminal", tabindex: 0, "aria-label": "The last lines" },
      lines.map((cells) => h("div", {}, ...lineNodes(cells)))) : null,
  ].filter(Boolean);
}

function draw() {
  drawing = 0;
  const { part, ...rest } = estimate(progress.steps, now());
  furthest = progress.state === "ready" ? 1 : Math.max(furthest, part);
  document.body.dataset.state = progress.state;
  document.body.style.setProperty("--part", furthest.toFixed(3));
  say(byId("status"), headline());
  say(byId("left"), outlook(rest));
  byId("bar").value = furthest;
  fill(byId("steps"), progress.steps.map(stepItem));
  log.flush();
}

/** What changes only with the state: title, icon, failure, which parts are shown. */
function turn() {
  const { state, failure, app, commit } = progress;
  document.title = `${state === "failed" && !isCancelled() ? "Failed" : headline()} · ${app} ${commit.short}`;
  const icon = byId("icon");
  icon.href = icon.dataset[state === "failed" || state === "ready" ? state : "waiting"];
  byId("failure").hidden = state !== "failed";
  byId("cancel").hidden = !mayCancel || state === "cold" || !isWaiting();
  byId("again").hidden = state !== "failed" && state !== "stopped";
  fill(byId("reason"), state === "failed" && failure ? failureCard(failure) : []);
  byId("reason").querySelector(".last")?.scrollTo(0, 1e9); // an exception is told at the end of its traceback
  if (state === "ready") arrive();
}

/** Draw soon, once, however many events come; a hidden tab gets no animation frames. */
function redraw() {
  if (drawing) return;
  drawing = document.hidden ? setTimeout(draw, 250) : requestAnimationFrame(draw);
}

function receive(event) {
  const before = progress;
  progress = advance(progress, event);
  if (progress === before) return;
  if (event.kind === "snapshot") restart(event.log);
  else if (event.attempt > before.attempt) restart([]);
  if (event.kind === "output") log.write(event.step, event.text);
  if (progress.steps !== before.steps || progress.state !== before.state) turn();
  redraw();
}

function restart(chunks) {
  furthest = 0;
  log.clear();
  for (const { step, text } of chunks) log.write(step, text);
  say(byId("trouble"), "");
  byId("retry").disabled = false;
  turn();
}

/** Open the app in this page's place, at most once a second whatever the server says. */
function arrive() {
  if (leaving) return;
  leaving = true;
  const last = Number(recall("lazycloud:opened")) || 0;
  const wait = Math.min(1000, Math.max(0, last + 1000 - Date.now()));
  setTimeout(() => {
    remember("lazycloud:opened", Date.now());
    location.reload();
  }, wait); // what is shown stays until the app's first byte, its last step's flourish with it
}

function recall(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return Date.now(); // storage is forbidden here: always take the slow way
  }
}

function remember(key, value) {
  try {
    sessionStorage.setItem(key, value);
  } catch { /* as above */ }
}

/** Where websockets never get through, a server that answers at all is asked for the page again. */
async function linkChanged(connected, failures) {
  byId("link").hidden = connected || failures < 1;
  wasConnected ||= connected;
  if (connected || wasConnected || failures < 5) return;
  await fetch(PLACE + "log", { method: "HEAD", cache: "no-store" }).then(() => location.reload(), () => {});
}

/** Post what a button stands for: its id is the path. What comes of it is an event; what does not is said. */
async function post(event, button) {
  event.preventDefault();
  button.disabled = true;
  say(byId("trouble"), "");
  try {
    const answer = await fetch(PLACE + button.id, { method: "POST" });
    if (!answer.ok) throw new Error(await reasonOf(answer));
    if (button.id === "cancel") button.disabled = false;
  } catch (error) {
    say(byId("trouble"), error instanceof TypeError ? "The server did not answer. Try again in a moment." : error.message);
    button.disabled = false;
  }
}

async function reasonOf(answer) {
  const said = await answer.json().catch(() => null);
  const { sentence, advice } = said?.error ?? said ?? {};
  return sentence ? `${sentence} ${advice ?? ""}`.trim() : "That did not work. Try again in a moment.";
}

/** The clipboard where the page may use it (https, localhost); elsewhere the old way, by a selection. */
async function copyLog() {
  try {
    await navigator.clipboard.writeText(log.text());
  } catch {
    getSelection().selectAllChildren(byId("log"));
    document.execCommand("copy");
  }
  say(byId("copy"), "Copied");
  setTimeout(() => say(byId("copy"), "Copy"), 1600);
}

byId("again").addEventListener("submit", (event) => post(event, byId("retry")));
byId("cancelling").addEventListener("submit", (event) => post(event, byId("cancel")));
byId("copy").addEventListener("click", copyLog);
byId("end").addEventListener("click", () => log.toEnd());
restart(progress.log);
draw();
setInterval(() => { if (isWaiting() && !document.hidden) draw(); }, calm ? 1000 : 100);
follow(PLACE + "progress", () => progress.number, receive, linkChanged);
