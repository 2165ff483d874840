// One task of the list. What people wrote only ever becomes text.

/** Open ones first, each as they came: keys begin with the time. */
export const before = (one, other) => one.done - other.done || (one.key < other.key ? -1 : 1);

/** An element for a task; `change(fields)` and `remove()` tell the server. */
export function make(change, remove) {
  const item = document.createElement("li");
  const done = Object.assign(document.createElement("input"), { type: "checkbox", className: "done" });
  const text = Object.assign(document.createElement("textarea"), { className: "text", rows: 1, maxLength: 500 });
  const away = Object.assign(document.createElement("button"), { className: "away", type: "button", textContent: "×" });
  text.setAttribute("aria-label", "Task");
  done.addEventListener("change", () => change({ done: done.checked }));
  text.addEventListener("change", () => text.value.trim() ? change({ text: text.value.trim() }) : remove());
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape") text.value = item.said;
    if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); text.blur(); }
  });
  away.addEventListener("click", remove);
  item.append(done, text, away);
  return item;
}

/** Show how the task is now; words that somebody is just writing stay. */
export function fill(item, task) {
  const [done, text, away] = [".done", ".text", ".away"].map((name) => item.querySelector(name));
  item.classList.toggle("is-done", task.done);
  done.checked = task.done;
  done.setAttribute("aria-label", `Done: ${task.text}`);
  away.setAttribute("aria-label", `Remove: ${task.text}`);
  if (document.activeElement !== text || text.value === item.said) text.value = task.text;
  item.said = task.text;
}
