// The list: read once, then kept by what the server says has changed, whoever changed it.

import { before, fill, make } from "./item.js";

const byId = (id) => document.getElementById(id);
const tasks = new Map(); // by key
const items = new Map();
let events;

async function send(method, path, fields) {
  byId("wrong").hidden = true;
  const body = fields && JSON.stringify(fields);
  const answer = await fetch(path, { method, body }).catch(() => null);
  if (answer?.ok) return true;
  byId("wrong").textContent = (await answer?.text()) || "The server did not answer. Try again.";
  byId("wrong").hidden = false;
  for (const [key, task] of tasks) fill(items.get(key), task); // what was not taken is not shown
  return false;
}

function take(key, task) {
  if (!task) {
    tasks.delete(key);
    items.get(key)?.remove();
    items.delete(key);
    return;
  }
  tasks.set(key, task);
  if (!items.has(key)) {
    const path = `/tasks/${encodeURIComponent(key)}`;
    items.set(key, make((fields) => send("PATCH", path, fields), () => send("DELETE", path)));
  }
  fill(items.get(key), task);
}

function draw() {
  const list = byId("tasks"), focused = document.activeElement; // which is lost where its item moves
  let place = list.firstElementChild;
  for (const { key } of [...tasks.values()].sort(before)) {
    if (items.get(key) === place) place = place.nextElementSibling;
    else list.insertBefore(items.get(key), place);
  }
  if (list.contains(focused)) focused.focus();
  const done = [...tasks.values()].filter((task) => task.done).length, left = tasks.size - done;
  byId("left").textContent = tasks.size ? `${left || "nothing"} left` : "";
  byId("empty").hidden = tasks.size > 0;
  byId("clear").hidden = done === 0;
  byId("clear").textContent = done === 1 ? "Remove the one that is done" : `Remove the ${done} that are done`;
}

function live(on) {
  byId("live").dataset.on = on;
  byId("live").textContent = on ? "Live" : "Connecting…";
}

async function begin() {
  events?.close();
  const answer = await fetch("/tasks").catch(() => null);
  if (!answer?.ok) return setTimeout(begin, 1000);
  const { tasks: all, sequence, commit, version } = await answer.json();
  const there = new Set(all.map(({ key }) => key));
  for (const key of [...tasks.keys()]) if (!there.has(key)) take(key, null);
  for (const task of all) take(task.key, task);
  draw();
  byId("tasks").removeAttribute("aria-busy");
  byId("version").textContent = [commit && `commit ${commit.slice(0, 10)}`, version && `data of ${version.slice(0, 10)}`].filter(Boolean).join(" · ");
  events = new EventSource(`/changes?since=${sequence}`);
  events.onopen = () => live(true);
  events.onerror = () => {
    live(false);
    if (events.readyState === EventSource.CLOSED) setTimeout(begin, 1000); // it was refused, and does not come back by itself
  };
  events.onmessage = ({ data }) => {
    const { key, task } = JSON.parse(data);
    take(key, task);
    draw();
  };
  events.addEventListener("again", begin);
}

byId("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { text } = event.target.elements, words = text.value.trim();
  text.value = ""; // at once: who is quick is writing the next one by the time that this is kept
  if (words && !await send("POST", "/tasks", { text: words })) text.value ||= words;
});
byId("clear").addEventListener("click", () => send("POST", "/clear"));
begin();
