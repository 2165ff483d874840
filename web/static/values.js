// A value of a document as the API gives it: an object there says what JSON has not, or what was cut.

const ONE_LINE = 90; // letters of an object or a list in a cell

const KINDS = ["datetime", "decimal", "bytes", "integer", "real", "text", "list", "object"];

/** What it is, in a word: text, number, true or false, nothing, or one of KINDS. */
function kindOf(value) {
  if (value === null) return "null";
  if (typeof value === "object") {
    const kind = KINDS.find((each) => each in value) ?? "unknown";
    return { integer: "number", real: "number" }[kind] ?? kind;
  }
  return { string: "text", number: "number", boolean: "boolean" }[typeof value];
}

const textOf = (value) => (typeof value === "string" ? value : `${value.text}…`);

/** It in one line of text. */
function plain(value) {
  switch (kindOf(value)) {
    case "text": return JSON.stringify(textOf(value));
    case "number": return typeof value === "number" ? String(value) : value.integer ?? value.real;
    case "datetime": return value.datetime;
    case "decimal": return value.decimal;
    case "bytes": return size(value.bytes);
    case "list": return `[${[...value.list.map(plain), value.more && `… ${value.more} more`].filter(Boolean).join(", ")}]`;
    case "object": return `{${[...value.object.map(([name, each]) => `${textOf(name)}: ${plain(each)}`), value.more && `… ${value.more} more`].filter(Boolean).join(", ")}}`;
    default: return String(value);
  }
}

/** It in a cell, or beside the name of a member. */
function valueInline(value) {
  if (value === undefined) return h("span", { class: "unseen" }, "not there");
  switch (kindOf(value)) {
    case "null": return h("i", { class: "nothing" }, "null");
    case "text": {
      if (typeof value === "string") return cut(value, value.length);
      return h("span", {}, value.text, h("i", {}, `… (${count(value.letters, "letter")})`));
    }
    case "datetime": return timeOf(value.datetime);
    case "bytes": return h("span", { title: `begins with ${value.begin || "nothing"}` }, size(value.bytes), h("small", {}, "bytes"));
    case "decimal": return h("span", {}, value.decimal, h("small", {}, "decimal"));
    case "list": case "object": {
      const text = plain(value);
      return text.length > ONE_LINE ? `${text.slice(0, ONE_LINE)}…` : text;
    }
    default: return plain(value);
  }
}

/** The server's time, to the second; to the microsecond, and here, when it is pointed at. */
function timeOf(iso) {
  const shown = iso.replace("T", " ").replace(/(\.\d+)?Z$/, "");
  const at = new Date(iso);
  return h("time", { datetime: iso, title: `${iso}${Number.isNaN(at.getTime()) ? "" : `, here ${at.toLocaleString("en")}`}` }, shown);
}

/** All of a document, a line for each member; objects and lists can be closed. */
function treeOf(value) {
  const members = value.object?.map(([name, each]) => [textOf(name), each]) ?? value.list?.map((each, index) => [String(index), each]) ?? [];
  const more = value.more > 0 && h("li", { class: "about" }, `and ${value.more.toLocaleString("en")} more that are not shown here`);
  return h("ul", { class: "tree" }, members.map(([name, each]) => h("li", {}, branchOf(name, each))), more,
    !members.length && !more && h("li", { class: "about" }, "empty"));
}

function branchOf(name, value) {
  const kind = kindOf(value), title = h("code", { class: "member" }, name);
  if (kind !== "object" && kind !== "list") return h("p", {}, title, h("span", { class: "value" }, leafOf(value)), h("small", {}, kind));
  const size = (value.object ?? value.list).length + (value.more ?? 0);
  return h("details", { open: true }, h("summary", {}, title, h("small", {}, kind === "list" ? count(size, "item") : count(size, "member"))), treeOf(value));
}

/** It without its kind, which stands beside it; a text whole. */
function leafOf(value) {
  if (typeof value === "string") return value || h("i", { class: "nothing" }, "empty");
  if (kindOf(value) === "bytes") return h("span", {}, size(value.bytes), value.begin && h("i", { class: "nothing" }, ` ${value.begin}${2 * value.bytes > value.begin.length ? "…" : ""}`));
  return kindOf(value) === "decimal" ? value.decimal : valueInline(value);
}

/** What became of a document, member by member: `change` as the API tells it. */
function changeNodes({ change, members, document: shown, more }) {
  if (change === "added" || change === "removed") return [h("p", { class: `whole ${change}` }, plain(shown))];
  if (!members?.length) return [h("p", { class: "about" }, "Nothing of it changed.")];
  const items = members.map(({ path, old, new: fresh }) => h("li", {}, h("code", { class: "member" }, path.map(textOf).join(".")), " ",
    old !== undefined && h("del", {}, valueInline(old)), old !== undefined && fresh !== undefined && " ", fresh !== undefined && h("ins", {}, valueInline(fresh))));
  return [h("ul", { class: "members" }, items), more && h("p", { class: "about" }, "There is more of it that changed.")].filter(Boolean);
}
