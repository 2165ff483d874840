// The documents of one app. What is looked at is in the address after #, so that going back and a copied link mean the same.

const page = document.querySelector("main");
const { app, role } = page.dataset;
const place = `/api/apps/${encodeURIComponent(app)}`;
const mayRead = role !== "viewer";
const PAGE = 100; // documents
const COLUMNS = 10; // members that have a column; a document has the others when it is opened
const FITS = 48; // letters of a value that has a line in the table; a longer one has three
const KEY = 20; // letters of a key in the table

let versions = [];
let skew = 0; // seconds from this clock to the server's
let collections = null; // of the point that is shown
let shownAt = ""; // the point that `collections` are of
let drawn = ""; // the query whose documents are shown
let asked = 0; // how often something was asked for: an answer that comes too late is not shown
let compared = 0;
let opener = null; // what had the focus before a document was opened

const now = () => Date.now() / 1000 + skew;
const since = (at) => ago(now() - at);
const wanted = () => ({ version: versions[0]?.name ?? "production", collection: "", filter: "", order: "", skip: "0", key: "", ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) });

/** Look at something else: only what is named changes. */
function go(changes) {
  const facts = Object.entries({ ...wanted(), ...changes }).filter(([name, value]) => value && !(name === "skip" && value === "0"));
  history.pushState(null, "", `#${new URLSearchParams(facts)}`);
  return show();
}

const ask = async (what, facts) => (await call(`${place}/versionbase${what}?${new URLSearchParams(facts)}`)).json();

async function show() {
  const state = wanted(), turn = ++asked;
  byId("point").value = state.version;
  if (shownAt !== state.version) collections = null;
  if (!collections) {
    byId("collections").setAttribute("aria-busy", "true");
    const found = await ask("", { point: state.version }).catch((error) => error);
    if (turn !== asked) return;
    byId("collections").removeAttribute("aria-busy");
    if (found instanceof Error) return showNothing(found.message);
    shownAt = state.version;
    collections = found.collections.toSorted((a, b) => a.name.localeCompare(b.name));
  }
  drawCollections(state);
  drawWithin();
  const chosen = collections.find(({ name }) => name === state.collection) ?? (!state.collection && collections[0]);
  byId("collection").hidden = !chosen;
  if (!chosen) return state.collection && toast(`There is no collection “${state.collection}” in this version.`, true);
  drawShape(chosen);
  byId("reading").hidden = !mayRead;
  if (!mayRead) return;
  if (byId("filter").value !== state.filter) { byId("filter").value = state.filter; grow(); }
  byId("order").value = state.order;
  if (state.key) openDocument(state, chosen.name, turn);
  else byId("document").close();
  const query = JSON.stringify([state.version, chosen.name, state.filter, state.order, state.skip]);
  if (drawn !== query) await find(state, chosen, turn, query);
}

function showNothing(words) {
  byId("collection").hidden = true;
  byId("collections").replaceChildren(h("p", { class: "empty" }, words));
}

function drawCollections({ collection }) {
  const chosen = collection || collections[0]?.name;
  fill(byId("collections"), [collections.length ? h("ul", {}, collections.map(({ name, documents }) => h("li", { "data-key": name },
    h("button", { type: "button", class: "place", "data-collection": name, "aria-current": name === chosen && "true" }, h("bdi", {}, name), h("span", { class: "about number" }, documents.toLocaleString("en"))))))
    : h("p", { class: "empty" }, "No collection yet: the first document that the app inserts makes one.")]);
}

function drawWithin() {
  const select = byId("within"), value = select.value;
  fill(select, [h("option", { value: "" }, "all collections"), ...collections.map(({ name }) => h("option", { value: name }, name))]);
  select.value = value;
  if (select.selectedIndex < 0) select.value = "";
}

function drawShape({ name, documents, indexes, schema }) {
  say(byId("collection-name"), name);
  say(byId("facts"), [count(documents, "document"), indexes.length ? count(indexes.length, "index", "indexes") : "no index"].join(" · "));
  fill(byId("shape"), [
    indexes.length > 0 && h("ul", { "data-key": "indexes", class: "indexes", "aria-label": "Indexes" }, indexes.map((index) => h("li", { class: "tag" },
      h("code", {}, pathOf(index.path)), index.name !== pathOf(index.path) && ` ${index.name}`, index.unique && " · unique", index.state !== "ready" && ` · ${index.state}`))),
    schema && h("details", { "data-key": `schema of ${name}` }, h("summary", {}, "Schema"), h("pre", { tabindex: 0, role: "region", "aria-label": `Schema of ${name}` }, JSON.stringify(schema, null, 2))),
  ].filter(Boolean));
}

const pathOf = (path) => (Array.isArray(path) ? path.join(".") : String(path));

async function find({ version, filter, order, skip }, { name, documents: all }, turn, query) {
  const box = byId("rows");
  box.setAttribute("aria-busy", "true");
  const found = await ask("/documents", { point: version, collection: name, filter, order, skip }).catch((error) => error);
  if (turn !== asked) return;
  box.removeAttribute("aria-busy");
  const failed = found instanceof Error;
  drawn = query;
  byId("problem").hidden = !failed;
  byId("filter").setAttribute("aria-invalid", String(failed));
  byId("problem").replaceChildren(...(failed ? problemNodes(found.message) : []));
  say(byId("explained"), failed ? "" : explanation(found.explain, filter, found.late));
  if (failed) return drawTurning([], 0, false);
  fill(box, [found.documents.length ? tableOf(name, found.documents) : h("p", { class: "empty" }, filter ? "No document is like that." : all && found.skip ? "There are no more." : "It has no document.")]);
  drawTurning(found.documents, found.skip, found.more);
}

/** Sentences, and between them the lines of the filter with what points into it; these begin with a bar. */
function problemNodes(message) {
  const lines = message.split("\n"), quoted = lines.filter((line) => line.startsWith(" | ")).map((line) => line.slice(3));
  const [first, ...others] = lines.filter((line) => !line.startsWith(" | "));
  const shown = quoted.map((line) => line.replace(/^[.．]+\^/, (dots) => dots.replaceAll(".", " ").replaceAll("．", "　")));
  return [h("p", { class: "wrong" }, first), shown.length > 0 && h("pre", {}, shown.join("\n")), ...others.map((line) => h("p", { class: "about" }, line))].filter(Boolean);
}

/** How they were found, and what that took. */
function explanation({ scan, index, estimate, sorted }, filter, late) {
  const many = Number.isFinite(estimate) ? count(estimate, "document") : "documents";
  const how = { key: "Looked up by key", index: `Used the index ${index}: about ${many} looked at`, collection: filter && `No index helps: ${many} to look at` }[scan] ?? scan;
  return [how, sorted && "put in order afterwards", late && "the time was up, and there may be more"].filter(Boolean).join(" · ");
}

function tableOf(name, documents) {
  const seen = new Map();
  for (const { document: { object } } of documents) for (const [member] of object) seen.set(textOf(member), (seen.get(textOf(member)) ?? 0) + 1);
  const shown = new Set([...seen].toSorted(([, a], [, b]) => b - a).slice(0, COLUMNS).map(([member]) => member));
  const columns = [...seen.keys()].filter((member) => shown.has(member)), left = seen.size - columns.length;
  const rows = documents.map(({ key, document: { object } }) => {
    const members = new Map(object.map(([member, value]) => [textOf(member), value]));
    const cells = columns.map((column) => cellOf(members.get(column)));
    return h("tr", { "data-key": key }, h("th", { scope: "row" }, h("button", { type: "button", class: "quiet key", "data-open": key, title: key, "aria-label": `Open ${key}` }, shortKey(key))), cells);
  });
  return h("div", { "data-key": `rows of ${name}` },
    h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `Documents of ${name}` },
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Key"), columns.map((column) => h("th", { scope: "col" }, column)))), h("tbody", {}, rows))),
    left > 0 && h("p", { class: "about" }, `Open a document to see ${left === 1 ? "one more member" : `${left} more members`}.`));
}

function cellOf(value) {
  const shown = value === undefined ? "" : plain(value);
  return h("td", { class: shown.length > FITS ? "long" : kindOf(value ?? null) }, h("div", {}, valueInline(value)));
}

const shortKey = (key) => (key.length > KEY ? `${key.slice(0, 8)}…${key.slice(-8)}` : key);

function drawTurning(documents, skip, more) {
  byId("back").hidden = !skip;
  byId("on").hidden = !more;
  say(byId("range"), documents.length && (skip || more) ? `${(skip + 1).toLocaleString("en")}–${(skip + documents.length).toLocaleString("en")}` : "");
  byId("on").dataset.skip = skip + documents.length;
  byId("back").dataset.skip = Math.max(0, skip - PAGE);
}

async function openDocument({ version, key }, collection, turn) {
  const dialog = byId("document"), box = byId("document-shown");
  say(byId("document-key"), key);
  box.replaceChildren(h("p", { class: "about" }, "Reading…"));
  if (!dialog.open) dialog.showModal();
  const found = await ask("/document", { point: version, collection, key }).catch((error) => error);
  if (turn !== asked) return;
  box.replaceChildren(...(found instanceof Error ? [h("p", { class: "wrong" }, found.message)] : documentNodes(found)));
}

function documentNodes({ document: whole, history: past, more }) {
  return [
    whole ? treeOf(whole) : h("p", { class: "empty" }, "There is no document of this key any more."),
    h("h3", {}, "History"),
    past.length ? h("ol", { class: "past" }, past.map(pastItem)) : h("p", { class: "about" }, "No change of it is kept any more."),
    more && h("p", { class: "about" }, `The last ${past.length} changes; there are earlier ones.`),
  ].filter(Boolean);
}

const PAST = { added: "put there", removed: "removed", changed: "changed", same: "written, and the same" };

function pastItem(change) {
  const at = Date.parse(change.at) / 1000;
  return h("li", {},
    h("p", {}, sign(change.change), h("b", {}, PAST[change.change]), " ",
      h("time", { class: "about", datetime: change.at, title: new Date(change.at).toLocaleString("en") }, since(at)), h("span", { class: "about" }, ` · sequence ${change.sequence.toLocaleString("en")}`)),
    change.change !== "same" && changeNodes(change));
}

async function compare(a, b, collection) {
  const box = byId("difference"), turn = ++compared;
  box.setAttribute("aria-busy", "true");
  fill(box, [h("p", { class: "about" }, "Looking at both…")]);
  const found = await ask("/diff", { a, b, collection }).catch((error) => error);
  if (turn !== compared) return;
  box.removeAttribute("aria-busy");
  box.replaceChildren(...(found instanceof Error ? [h("p", { class: "wrong" }, found.message)] : differenceOf(found)));
}

function differenceOf({ differences, more, late }) {
  if (!differences.length) return [h("p", { class: "empty" }, late ? "Nothing was found before the time was up." : "Nothing differs: the same documents in the same collections.")];
  const byCollection = Map.groupBy(differences, ({ collection }) => collection);
  return [...[...byCollection].flatMap(([name, changes]) => [h("h3", {}, h("bdi", {}, name)), h("ul", { class: "tables" }, changes.map((change) => h("li", { class: "different" },
    h("p", {}, sign(change.change), h("code", { title: change.key }, shortKey(change.key))), changeNodes(change))))]),
    more && h("p", { class: "about" }, `The first ${differences.length}; there are more.`), late && h("p", { class: "about" }, "The time was up before all was compared.")].filter(Boolean);
}

function drawPoints() {
  for (const id of ["point", "from", "to"]) fill(byId(id), pointOptions(versions, since));
  byId("point").disabled = false;
  byId("compare").hidden = !mayRead || byId("from").options.length < 2;
  if (byId("from").options.length > 1) byId("from").selectedIndex = 1;
}

/** The filter is as high as its lines. */
function grow() {
  const filter = byId("filter");
  filter.rows = Math.min(12, Math.max(1, filter.value.split("\n").length));
}

document.addEventListener("click", ({ target }) => {
  const { collection, open } = target.closest("button")?.dataset ?? {};
  if (collection !== undefined) go({ collection, filter: "", order: "", skip: "0", key: "" }).then(() => byId("collection-name").focus());
  if (open !== undefined) { opener = open; go({ key: open }); }
});
byId("point").addEventListener("change", () => go({ version: byId("point").value, skip: "0", key: "" }));
byId("query").addEventListener("submit", (event) => {
  event.preventDefault();
  collections = null; // their numbers may be others by now
  drawn = "";
  go({ filter: byId("filter").value.trim(), order: byId("order").value.trim(), skip: "0", key: "" });
});
byId("filter").addEventListener("input", grow);
byId("filter").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("query").requestSubmit();
});
for (const id of ["on", "back"]) byId(id).addEventListener("click", () => go({ skip: byId(id).dataset.skip }));
byId("close").addEventListener("click", () => byId("document").close());
byId("document").addEventListener("close", () => {
  if (wanted().key) go({ key: "" });
  document.querySelector(`[data-open="${CSS.escape(opener ?? "")}"]`)?.focus();
});
byId("points").addEventListener("submit", (event) => {
  event.preventDefault();
  compare(byId("from").value, byId("to").value, byId("within").value);
});
byId("turn").addEventListener("click", () => {
  [byId("from").value, byId("to").value] = [byId("to").value, byId("from").value];
});
addEventListener("popstate", show);
try {
  const answer = await call(`${place}/data`);
  skew = (Date.parse(answer.headers.get("Date")) || Date.now()) / 1000 - Date.now() / 1000;
  versions = (await answer.json()).versions.filter(({ documents }) => documents);
  if (versions.length) drawPoints();
} catch (error) {
  toast(error.message, true);
}
await show();
