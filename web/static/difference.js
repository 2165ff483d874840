// What became of one version's data in another, as the API tells it, for people.

const MOST_TOKENS = 900; // of a schema's SQL, of which what differs is marked
const MOST_LETTERS = 300; // of one value

const SIGNS = { added: "+", removed: "−", changed: "±" };
const count = (number, noun, plural = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
const size = (bytes) => {
  const [unit, name] = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "bytes"]].find(([least]) => bytes >= least) ?? [1, "bytes"];
  const number = bytes / unit;
  return `${number.toLocaleString("en", { maximumFractionDigits: unit > 1 && number < 10 ? 1 : 0 })} ${name}`;
};

/** What each list has and the other has not, in one list of [sign, token]: "=", "-" or "+". By their longest common part. */
function tokensApart(one, other) {
  const long = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i--) {
    for (let k = other.length - 1; k >= 0; k--) {
      long[i][k] = one[i] === other[k] ? long[i + 1][k + 1] + 1 : Math.max(long[i + 1][k], long[i][k + 1]);
    }
  }
  const found = [];
  for (let i = 0, k = 0; i < one.length || k < other.length;) {
    if (i < one.length && k < other.length && one[i] === other[k]) {
      found.push(["=", one[i++]]);
      k++;
    } else if (k < other.length && (i === one.length || long[i][k + 1] > long[i + 1][k])) found.push(["+", other[k++]]);
    else found.push(["-", one[i++]]);
  }
  return found;
}

function sqlApart(before, after) {
  if (before == null || after == null) return [before ?? after ?? ""];
  const [one, other] = [before, after].map((text) => text.match(/\s+|\w+|[^\s\w]/g) ?? []);
  if (one.length > MOST_TOKENS || other.length > MOST_TOKENS) return [h("del", {}, before), "\n", h("ins", {}, after)];
  const parts = [];
  for (const [sign, token] of tokensApart(one, other)) {
    const last = parts.at(-1);
    if (last?.sign === sign) last.text += token;
    else parts.push({ sign, text: token });
  }
  return parts.map(({ sign, text }) => (sign === "=" ? text : h(sign === "+" ? "ins" : "del", {}, text)));
}

function schemaItem({ kind, name, change, before, after }) {
  return h("li", { class: "change" },
    h("p", {}, sign(change), h("b", {}, kind), " ", h("code", {}, name), " ", h("span", { class: "about" }, change)),
    h("pre", { class: change, tabindex: 0, role: "region", "aria-label": `SQL of ${name}` }, ...sqlApart(before, after)));
}

const sign = (change) => h("span", { class: `sign ${change}`, role: "img", "aria-label": change }, SIGNS[change] ?? "·");

/** A value as the API gives it: what JSON has not, or what is long, is an object. */
function valueNode(value) {
  if (value == null) return h("i", { class: "nothing" }, "null");
  if (typeof value !== "object") return cut(String(value), String(value).length);
  if (value.integer != null || value.real != null) return value.integer ?? value.real;
  if (value.blob != null) return h("i", { title: value.sha256 }, size(value.blob));
  return cut(value.text ?? JSON.stringify(value), value.length ?? 0);
}

const cut = (text, length) => (length > MOST_LETTERS ? h("span", {}, text.slice(0, MOST_LETTERS), h("i", {}, `… (${count(length, "letter")})`)) : text || h("i", { class: "nothing" }, "empty"));

function rowCells({ change, key, before, after }, columns) {
  return columns.map((column) => {
    const [old, fresh] = [{ ...key, ...before }[column], { ...key, ...after }[column]]; // a document has it beside its members
    if (change !== "changed") return h("td", {}, valueNode(before ? old : fresh));
    if (JSON.stringify(old) === JSON.stringify(fresh)) return h("td", { class: "same" }, valueNode(old));
    return h("td", { class: "differs" }, h("del", {}, valueNode(old)), " ", h("ins", {}, valueNode(fresh)));
  });
}

function rowsTable({ name, rows, more, note }, noun = "row") {
  if (!rows.length) return h("p", { class: "about" }, note || `No ${noun} of it differs.`);
  const columns = [...new Set(rows.flatMap((row) => Object.keys(noun === "row" ? { ...row.before, ...row.after } : { ...row.key, ...row.before, ...row.after })))];
  return h("div", {},
    h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `${entitled(noun)} of ${name}` },
      h("table", {},
        h("thead", {}, h("tr", {}, h("th", {}, h("span", { class: "unseen" }, "What became of it")), columns.map((column) => h("th", { scope: "col" }, column)))),
        h("tbody", {}, rows.map((row) => h("tr", { class: row.change }, h("td", {}, sign(row.change)), rowCells(row, columns)))))),
    more && h("p", { class: "about" }, `The first ${rows.length}; there are more.`));
}

/** What rows are called, as a title: `noun` is "row", or "document". */
const entitled = (noun) => `${noun[0].toUpperCase()}${noun.slice(1)}s`;

function rowsWords({ before, after }, noun) {
  if (before == null && after == null) return "cannot be read";
  if (after == null) return `had ${count(before, noun)}`;
  return before == null || before === after ? count(after, noun) : `${before.toLocaleString("en")} → ${count(after, noun)}`;
}

/** A table's counts; its rows are fetched by `open(database, table, into)` when somebody wants to see them, who may. */
function tableItem({ name: database, noun = "row" }, table, open) {
  const { name, note, added, removed, changed } = table;
  const counts = [[added, "added"], [removed, "removed"], [changed, "changed"]].filter(([number]) => number);
  const words = [h("code", {}, name), h("span", { class: "about" }, rowsWords(table, noun)), ...counts.map(([number, change]) =>
    h("span", { class: "tally" }, sign(change), number.toLocaleString("en"), h("span", { class: "unseen" }, ` ${change}`)))];
  const remark = note && h("p", { class: "about" }, note);
  if (!open) return h("li", { class: "table" }, h("p", { class: "summary" }, words), remark);
  const details = h("details", { class: "table" }, h("summary", { class: "summary" }, words), remark, h("div", { class: "rows-here" }));
  details.addEventListener("toggle", () => details.open && open(database, name, details.querySelector(".rows-here")), { once: true });
  return h("li", {}, details);
}

function fileItem({ path, change, before, after }) {
  const bytes = before == null ? size(after ?? 0) : after == null ? size(before) : before === after ? size(after) : `${size(before)} → ${size(after)}`;
  return h("li", {}, h("p", {}, sign(change), h("code", {}, path), h("span", { class: "about" }, bytes)));
}

function differenceNodes({ same, databases, files, more }, open) {
  if (same) return [h("p", { class: "empty" }, "Nothing differs: the same schema, the same rows, the same files.")];
  const several = databases.length > 1;
  const nodes = databases.flatMap((database) => {
    const { name, schema, tables, note, noun = "row" } = database;
    const part = (title, items, list) => items.length > 0 && [h("h3", {}, title), h("ul", { class: list }, items)];
    return [several && h("h3", { class: "database" }, h("code", {}, name)), note && h("p", { class: "about" }, note),
      part("Schema", schema.map(schemaItem), "changes"),
      part(entitled(noun), tables.map((table) => tableItem(database, table, open)), "tables")].flat();
  });
  if (files.length) nodes.push(h("h3", {}, "Files"), h("ul", { class: "files" }, files.map(fileItem)));
  if (more) nodes.push(h("p", { class: "about" }, "There are more files that differ."));
  return nodes.filter(Boolean);
}

/** In words what going back takes away: `difference` is from what is gone back to, to what is now. */
function lossWords({ same, databases, files, more }) {
  if (same) return ["Nothing was written since: nothing is lost."];
  const every = databases.flatMap(({ tables: each, noun = "row" }) => each.map((table) => ({ ...table, noun })));
  const tables = every.filter(({ added, removed, changed }) => added + removed + changed).map(({ name, noun, added, removed, changed }) => {
    const parts = [added && `${count(added, `new ${noun}`)} lost`, changed && `${count(changed, noun)} changed back`, removed && `${count(removed, `removed ${noun}`)} back`];
    return `${name}: ${parts.filter(Boolean).join(", ")}`;
  });
  const shape = { added: "goes", removed: "comes back", changed: "changes back" };
  const schema = databases.flatMap(({ schema: each }) => each).map(({ kind, name, change }) => `${kind} ${name} ${shape[change]}`);
  const changes = ["added", "changed", "removed"].map((change) => [change, files.filter((file) => file.change === change).length]).filter(([, number]) => number);
  const words = { added: "lost", changed: "changed back", removed: "back" };
  const ofFiles = changes.map(([change, number]) => `${count(number, { added: "new file", removed: "removed file" }[change] ?? "file")} ${words[change]}`).join(", ");
  return [...schema, ...tables, ofFiles && `${ofFiles}${more ? ", and more" : ""}`].filter(Boolean);
}
