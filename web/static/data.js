// The data of one app: draws what the API tells of its versions, and asks for what its buttons say.

const page = document.querySelector("main");
const { app, role } = page.dataset;
const place = `/api/apps/${encodeURIComponent(app)}/data`;
const mayChange = role !== "viewer", owns = role === "owner"; // who may not is shown no button for it
const FEW = 12; // versions, and snapshots of one, that are shown before somebody asks for all
const BURST = 1500; // ms between looks: sizes are counted for each
const NEWS = /^(version|snapshot|fork|state|commit|promoted)/; // kinds of events that this page has something of
const ROWS = 50; // that differ, of a table

let seen = null; // what the API told last
let skew = 0; // seconds from this clock to the server's
let number = null; // the last event seen
let timer = 0, fetched = 0;
let chosen = "production", marked = ""; // a version, and a snapshot of it
const whole = new Set(); // lists that are shown to their end
let compared = ""; // the two points that were asked for last

const now = () => Date.now() / 1000 + skew;
const since = (at) => ago(now() - at);
const dots = (...parts) => parts.filter(Boolean).flatMap((part, i) => (i ? [" · ", part] : [part]));
const versionOf = (name) => seen.versions.find((version) => version.name === name);

function button(text, about, action, data = {}, look = "quiet") {
  const facts = Object.entries({ action, ...data }).map(([name, value]) => [`data-${name}`, value]);
  return h("button", { type: "button", class: look, "aria-label": `${text} ${about}`, ...Object.fromEntries(facts) }, text);
}

function stateOf({ live, pending }) {
  if (pending) return "not made yet";
  return live ? "live" : "asleep";
}

function ofWhom({ source, forked, snapshot, production }) {
  if (!source) return production ? since(forked) : `empty, ${since(forked)}`;
  const origin = versionOf(source), at = origin?.snapshots.find(({ id }) => id === snapshot);
  return `from ${origin?.label ?? source.slice(0, 10)}${at?.name ? `@${at.name}` : ""}, ${since(forked)}`;
}

const sizes = ({ bytes, own, pending }) => (pending ? "" : own != null && own !== bytes ? `${size(bytes)} (${size(own)} its own)` : size(bytes));

function lineItem(version) {
  const { name, label, subject, production, pinned, pending, live, used, snapshots } = version;
  return h("li", { "data-key": name, class: chosen === name ? "version now" : "version", "data-version": name },
    h("div", { class: "words" },
      h("p", {}, h("span", { class: "dot", "data-state": live ? "ready" : "cold", "aria-hidden": "true" }),
        h("button", { type: "button", class: "pick", "data-action": "pick", "data-name": name, "aria-pressed": String(chosen === name) },
          production ? h("b", {}, label) : h("code", {}, label), subject && h("bdi", {}, subject)),
        pinned && h("span", { class: "tag" }, "pinned"), pending && h("span", { class: "tag" }, "not made yet")),
      h("p", { class: "about" }, ...dots(sizes(version), ofWhom(version), !live && used > 0 && !pending && `used ${since(used)}`,
        snapshots.length > 0 && count(snapshots.length, "snapshot")))),
    h("div", { class: "lane" }));
}

function drawVersions() {
  const box = byId("lines"), { versions } = seen;
  say(byId("about"), summary());
  if (!versions.length) {
    return fill(box, [h("p", { class: "empty" }, "No data yet: they are made when production or a commit first runs. Try ", h("code", {}, "lazycloud open"))]);
  }
  const shown = shownVersions();
  const rest = versions.length - shown.length;
  const picture = byId("picture") ?? svg("svg", { id: "picture", "aria-hidden": "true", "data-key": "picture" });
  if (!picture.parentElement) box.replaceChildren(picture);
  fill(box, [picture, h("ol", { "data-key": "list" }, shown.map(lineItem)),
    rest > 0 && h("p", { "data-key": "rest" }, button(`Show all ${versions.length}`, "versions", "all", { list: "versions" }))].filter(Boolean));
  paint();
}

/** The first ones of the tree, and the one that is chosen; whoever is shown is shown with what it comes from. */
function shownVersions() {
  const all = inOrder(seen.versions);
  if (whole.has("versions") || all.length <= FEW + 2) return all;
  const wanted = new Set(all.slice(0, FEW));
  for (let each = versionOf(chosen); each && !wanted.has(each); each = versionOf(each.source)) wanted.add(each);
  return all.filter((each) => wanted.has(each));
}

function summary() {
  const { versions, keep, limit } = seen, bytes = versions.reduce((sum, each) => sum + (each.own ?? each.bytes), 0);
  const snapshots = versions.reduce((sum, each) => sum + each.snapshots.length, 0);
  return dots(versions.length > 0 && count(versions.length, "version"), snapshots > 0 && count(snapshots, "snapshot"),
    versions.length > 0 && (limit > 0 ? `${size(bytes)} of ${size(limit)}` : size(bytes)),
    keep > 0 && `unused ones go after ${count(Math.round(keep / 86400), "day")}`).join("");
}

function paint() {
  const picture = byId("picture");
  if (!picture) return;
  const lanes = new Map([...document.querySelectorAll("[data-version]")].map((item) => [item.dataset.version, item.querySelector(".lane")]));
  drawLines(picture, inOrder(seen.versions).filter(({ name }) => lanes.has(name)), now(), ({ name }) => lanes.get(name), pick);
}

function pick({ name }, snapshot) {
  chosen = name;
  marked = snapshot?.id ?? "";
  if (marked) whole.add(name);
  draw();
  const target = marked ? document.querySelector(`[data-key="${CSS.escape(marked)}"]`) : byId("chosen");
  target?.scrollIntoView({ block: "nearest" });
}

function snapshotItem(version, snapshot) {
  const { id, name, at, who, size: bytes, note, why } = snapshot, words = titleOf(snapshot);
  const own = mayChange && (owns || !version.production), data = { name: version.name, id };
  return h("li", { "data-key": id, class: marked === id ? "snapshot now" : "snapshot" },
    h("p", {}, h("span", { class: name ? "knot named" : "knot", "aria-hidden": "true" }), name ? h("b", {}, name) : h("span", {}, words),
      h("time", { class: "about", datetime: new Date(at * 1000).toISOString(), title: new Date(at * 1000).toLocaleString("en") }, since(at))),
    h("p", { class: "actions" }, h("span", { class: "about" }, size(bytes)),
      button("Compare", `${words} with now`, "compare", data), mayChange && button("Fork", words, "fork", data),
      own && button("Restore", words, "restore", data), own && button("Forget", words, "forget", data)),
    (note || (name && who)) && h("p", { class: "about" }, ...dots(name && who && `by ${who}`, note)));
}

function drawChosen() {
  const box = byId("chosen"), version = versionOf(chosen) ?? seen.versions[0];
  box.hidden = !version;
  if (!version) return;
  const { name, label, subject, production, used, live, pending, snapshots, commit, source } = version;
  const facts = [["State", stateOf(version)], ["Size", pending ? "none yet" : sizes(version)], [source ? "Forked" : "Made", ofWhom(version)],
    !production && commit && ["Commit", commit.slice(0, 10)], !live && used > 0 && ["Last use", since(used)]].filter(Boolean);
  const newest = snapshots.toSorted((a, b) => b.at - a.at), shown = whole.has(name) ? newest : newest.slice(0, FEW);
  fill(box, [
    h("h2", {}, production ? label : h("code", {}, label), subject && h("bdi", {}, subject)),
    h("dl", {}, facts.map(([term, what]) => h("div", {}, h("dt", {}, term), h("dd", {}, what)))),
    h("p", { class: "actions" },
      mayChange && !pending && button("Take a snapshot", `of ${label}`, "snapshot", { name }, "main"),
      mayChange && !pending && button("Fork", label, "fork", { name }),
      !pending && source && versionOf(source) && button("Compare", `${label} with what it came from`, "compare", { name: source, to: name }),
      mayChange && !production && !pending && button("Reset", label, "reset", { name }),
      mayChange && !production && button("Remove", `data of ${label}`, "rm", { name })),
    h("h3", {}, snapshots.length ? count(snapshots.length, "snapshot") : "No snapshot yet"),
    h("ol", { class: "snapshots" }, shown.map((each) => snapshotItem(version, each))),
    shown.length < newest.length && h("p", {}, button(`Show all ${newest.length}`, `snapshots of ${label}`, "all", { list: name }))].filter(Boolean));
}

function drawCompare() {
  const first = byId("from").options.length === 0;
  byId("compare").hidden = !seen.versions.some(({ pending }) => !pending);
  for (const id of ["from", "to"]) {
    const select = byId(id), value = select.value;
    fill(select, pointOptions(seen.versions, since));
    if (value) select.value = value;
  }
  if (first && byId("from").options.length > 1) byId("from").selectedIndex = 1; // what came just before, with what is now
}

function draw() {
  if (!seen) return;
  drawVersions();
  drawChosen();
  drawCompare();
  byId("lines").removeAttribute("aria-busy");
}

async function refresh() {
  fetched = Date.now();
  const answer = await call(place);
  skew = (Date.parse(answer.headers.get("Date")) || Date.now()) / 1000 - Date.now() / 1000;
  seen = await answer.json();
  byId("documents").hidden = !seen.versions.some(({ documents }) => documents);
  draw();
}

function soon() {
  timer ||= setTimeout(() => {
    timer = 0;
    refresh().catch(() => {}); // the next event asks again
  }, Math.max(300, fetched + BURST - Date.now()));
}

/** What differs, as the API tells it. */
const differenceOf = async (a, b, more = {}) => (await call(`${place}/diff?${new URLSearchParams({ a, b, ...more })}`)).json();

async function compare(a, b) {
  byId("from").value = a;
  byId("to").value = b;
  const box = byId("difference"), asked = compared = `${a}\n${b}`;
  box.setAttribute("aria-busy", "true");
  fill(box, [h("p", { class: "about" }, "Looking at both…")]);
  byId("compare").scrollIntoView({ block: "start" });
  const nodes = await differenceOf(a, b).then((found) => differenceNodes(found, mayChange && ((database, table, into) => openRows(a, b, database, table, into))),
    (error) => [h("p", { class: "wrong" }, error.message)]);
  if (asked !== compared) return;
  box.removeAttribute("aria-busy");
  box.replaceChildren(...nodes);
}

async function openRows(a, b, database, table, into) {
  into.replaceChildren(h("p", { class: "about" }, "Reading…"));
  try {
    const found = await differenceOf(a, b, { table, rows: ROWS });
    const of = found.databases.find(({ name }) => name === database);
    const one = of?.tables.find(({ name }) => name === table);
    into.replaceChildren(rowsTable(one ?? { name: table, rows: [] }, of?.noun));
  } catch (error) {
    into.replaceChildren(h("p", { class: "wrong" }, error.message));
  }
}

/** Ask in the dialog; what was written ("" where nothing was asked for), or null for no. `more`: nodes, or a promise of them. */
async function ask(title, about, verb, { field, more } = {}) {
  const dialog = byId("ask"), yes = byId("ask-yes"), input = byId("ask-text");
  say(byId("ask-title"), title);
  say(byId("ask-about"), about);
  say(yes, verb);
  byId("ask-input").hidden = !field;
  input.required = Boolean(field?.required);
  if (field?.pattern) input.pattern = field.pattern;
  else input.removeAttribute("pattern");
  say(byId("ask-label"), field?.label ?? "");
  say(byId("ask-hint"), field?.hint ?? "");
  input.value = dialog.returnValue = "";
  byId("ask-more").replaceChildren();
  dialog.showModal();
  const answer = new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? input.value.trim() : null), { once: true });
  });
  if (more) {
    yes.disabled = true;
    byId("ask-more").replaceChildren(h("p", { class: "about" }, "Looking at what would be lost…"));
    more.then((nodes) => byId("ask-more").replaceChildren(...nodes)).finally(() => { yes.disabled = false; });
  }
  return answer;
}

/** What a version loses when it goes back, told before it does. */
async function loss(from, version) {
  try {
    const words = lossWords(await differenceOf(from, version.name));
    return [h("ul", { class: "loss" }, words.slice(0, FEW).map((each) => h("li", {}, each)), words.length > FEW && h("li", {}, `and ${words.length - FEW} more`))];
  } catch (error) {
    return [h("p", { class: "wrong" }, `What would be lost cannot be told: ${error.message}`)];
  }
}

const NAME = { label: "Name", hint: "optional; with one it stays until it is forgotten", pattern: "[a-z0-9][a-z0-9._\\-]{0,59}" };
const COMMIT = { label: "For which commit?", hint: "its id, a branch or a tag", required: true };

/** What to send, or null when the reader thought better of it; and what to say when it was done. */
const ACTIONS = {
  async snapshot(version) {
    const name = await ask(`Take a snapshot of ${version.label}?`, "It goes on running meanwhile.", "Take it", { field: NAME });
    return name == null ? null : { verb: "snapshot", body: { ref: version.name, name }, done: `${name || "A snapshot"} of ${version.label} is taken.` };
  },
  async fork(version, snapshot) {
    const words = snapshot ? `${version.label} at “${titleOf(snapshot)}”, ${since(snapshot.at)}` : `${version.label} as it is now`;
    const to = await ask("Fork these data?", `Another commit’s preview begins with the data of ${words}. It must have none of its own yet.`, "Fork", { field: COMMIT });
    return to == null ? null : { verb: "fork", body: { from: exact(version, snapshot), to }, done: `${to} begins with the data of ${words}.` };
  },
  async restore(version, snapshot) {
    const about = `${titled(version)} goes back to what it was at “${titleOf(snapshot)}”, ${since(snapshot.at)}. What was written since is lost to it; a snapshot of how it is now is taken first, so that this can be undone. ${version.live ? "It stops for a moment, and starts again." : ""}`;
    const yes = await ask(`Restore ${version.label}?`, about.trim(), "Restore", { more: loss(exact(version, snapshot), version) });
    return yes == null ? null : { verb: "restore", body: { point: exact(version, snapshot) }, done: `${version.label} is what it was at “${titleOf(snapshot)}”.` };
  },
  async forget(version, snapshot) {
    const yes = await ask(`Forget “${titleOf(snapshot)}”?`, `This snapshot of ${version.label}, taken ${since(snapshot.at)}, is gone then. What was forked from it stays.`, "Forget");
    return yes == null ? null : { verb: "forget", body: { point: exact(version, snapshot) }, done: "It is forgotten." };
  },
  async reset(version) {
    const yes = await ask(`Reset ${version.label}?`, `All that was written to it${version.snapshots.length ? `, and its ${count(version.snapshots.length, "snapshot")},` : ""} is lost; it is forked anew when it is next opened.`, "Reset");
    return yes == null ? null : { verb: "reset", body: { ref: version.name }, done: `${version.label} begins anew.` };
  },
  async rm(version) {
    const yes = await ask(`Remove the data of ${version.label}?`, `It is stopped, and its data${version.snapshots.length ? ` with ${count(version.snapshots.length, "snapshot")}` : ""} are gone; it is forked anew when somebody opens it.`, "Remove");
    return yes == null ? null : { verb: "rm", body: { ref: version.name }, done: `The data of ${version.label} are removed.` };
  },
};

const titled = ({ production, label }) => (production ? "Production" : label);

/** By its id, whatever its name comes to mean. */
const exact = (version, snapshot) => (snapshot ? `${version.name}@${snapshot.id}` : version.name);

async function act(action, name, id) {
  const version = versionOf(name), snapshot = version?.snapshots.find((each) => each.id === id);
  if (!version || (id && !snapshot)) return;
  const wish = await ACTIONS[action](version, snapshot);
  if (!wish) return;
  page.setAttribute("aria-busy", "true");
  try {
    await call(`${place}/${wish.verb}`, wish.body);
    toast(wish.done);
  } catch (error) {
    toast(error.message, true);
  }
  page.removeAttribute("aria-busy");
  await refresh().catch((error) => toast(error.message, true));
}

document.addEventListener("click", ({ target }) => {
  const { action, name, id, to, list } = target.closest("button[data-action]")?.dataset ?? {};
  if (action === "pick") pick(versionOf(name));
  else if (action === "all") { whole.add(list); draw(); }
  else if (action === "compare") compare(id ? `${name}@${id}` : name, to ?? name);
  else if (ACTIONS[action]) act(action, name, id);
});
byId("points").addEventListener("submit", (event) => {
  event.preventDefault();
  compare(byId("from").value, byId("to").value);
});
byId("turn").addEventListener("click", () => {
  [byId("from").value, byId("to").value] = [byId("to").value, byId("from").value];
});
new ResizeObserver(() => seen && paint()).observe(byId("lines"));
setInterval(() => { if (!document.hidden && seen) draw(); }, 30000);
await refresh().catch((error) => {
  toast(error.message, true);
  byId("lines").removeAttribute("aria-busy");
});
follow("/api/follow", () => number, (event) => {
  number = Math.max(number ?? 0, event.number);
  if (event.app === app && NEWS.test(event.kind)) soon();
}, (connected) => { byId("link").hidden = connected; });
