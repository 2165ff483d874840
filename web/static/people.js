// People and tokens: draws what the API lists, and asks for what its forms and buttons say.

const page = document.querySelector("main");
const owns = page.dataset.role === "owner";
const since = (at) => ago(Date.now() / 1000 - at);
const on = (at) => new Date(at * 1000).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
const dots = (...parts) => parts.filter(Boolean).flatMap((part, i) => (i ? [" · ", part] : [part]));
const path = (kind, name, verb) => `/api/${kind}/${encodeURIComponent(name)}/${verb}`;
const ROLES = ["viewer", "developer", "owner"];

function button(text, about, action, name) {
  return h("button", { type: "button", class: "quiet", "aria-label": `${text} ${about}`, "data-action": action, "data-name": name }, text);
}

const empty = (text) => h("p", { class: "empty" }, text);
const rows = (items, none) => [items.length ? h("ol", { class: "rows" }, items) : empty(none)];

function personRow({ name, role, disabled, password, sessions, seen, who, created }) {
  return h("li", { "data-key": name, class: disabled ? "row off" : "row" },
    h("div", {},
      h("p", {}, h("bdi", { class: "name" }, name), disabled && h("span", { class: "tag" }, "disabled")),
      h("p", { class: "about" }, ...dots(password ? "has a password" : "in by link only",
        sessions > 0 && `seen ${since(seen)}`, `added ${since(created)} by ${who}`))),
    h("select", { "aria-label": `Role of ${name}`, "data-role-of": name },
      ROLES.map((each) => h("option", { selected: each === role }, each))),
    !disabled && button("Link", name, "link", name),
    button(disabled ? "Enable" : "Disable", name, disabled ? "enable" : "disable", name),
    button("Remove", name, "remove", name));
}

function tokenRow({ name, role, app, previews, expires, expired, used, who, created }) {
  return h("li", { "data-key": name, class: expired ? "row off" : "row" },
    h("div", {},
      h("p", {}, h("bdi", { class: "name" }, name), h("span", { class: "tag" }, previews ? "previews" : role),
        app && h("span", { class: "tag" }, app)),
      h("p", { class: "about" }, ...dots(used ? `used ${since(used)}` : "not used yet",
        expires ? `${expired ? "ended" : "ends"} ${on(expires)}` : "does not end", `made ${since(created)} by ${who}`))),
    button("Revoke", name, "revoke", name));
}

function sessionRow({ id, name, agent, client, seen, current }) {
  return h("li", { "data-key": id, class: "row" },
    h("div", {},
      h("p", {}, h("bdi", { class: "name" }, name), current && h("span", { class: "tag live" }, "this one")),
      h("p", { class: "about" }, ...dots(`seen ${since(seen)}`, `from ${client}`, agent))),
    !current && button("Log out", name, "end", id));
}

async function refresh() {
  if (!owns) return;
  const [people, tokens, sessions, apps] = await Promise.all(
    ["/api/accounts", "/api/tokens", "/api/sessions", "/api/apps"].map(async (each) => (await call(each)).json()));
  fill(byId("people"), rows(people.map(personRow), "Nobody yet but the owner of this server."));
  fill(byId("tokens"), rows(tokens.map(tokenRow), "No token yet."));
  fill(byId("sessions"), rows(sessions.map(sessionRow), "Nobody is logged in."));
  fill(byId("token-app"), [h("option", { value: "" }, "all apps"), ...apps.map(({ name }) => h("option", { value: name }, name))]);
  for (const id of ["people", "tokens", "sessions"]) byId(id).removeAttribute("aria-busy");
  for (const { name, role } of people) document.querySelector(`[data-role-of="${CSS.escape(name)}"]`).value = role;
}

/** Whether the reader says yes. */
function ask(title, about, verb) {
  const dialog = byId("ask");
  say(byId("ask-title"), title);
  say(byId("ask-about"), about);
  say(byId("ask-yes"), verb);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** A secret, which is gone from the page when the dialog closes. */
function showOnce(title, about, secret) {
  say(byId("once-title"), title);
  say(byId("once-about"), about);
  say(byId("secret"), secret);
  byId("once").showModal();
}

async function invite(name) {
  const { url } = await (await call(path("accounts", name, "link"), {})).json();
  showOnce(`A link for ${name}`, "It logs in whoever opens it first, within a quarter of an hour. There they can choose a password.", url);
}

const ACTIONS = {
  link: invite,
  enable: (name) => call(path("accounts", name, "set"), { disabled: false }),
  disable: async (name) => await ask(`Disable ${name}?`, "Their browsers are logged out. Tokens that they made go on.", "Disable")
    && call(path("accounts", name, "set"), { disabled: true }),
  remove: async (name) => await ask(`Remove ${name}?`, "What they did stays in the event log. Tokens that they made go on.", "Remove")
    && call(path("accounts", name, "remove"), {}),
  revoke: async (name) => await ask(`Revoke ${name}?`, "The token is worth nothing from then on.", "Revoke")
    && call(path("tokens", name, "revoke"), {}),
  end: (id) => call("/api/sessions/end", { session: id }),
};

const FORMS = {
  async password({ before, password }) {
    await call("/api/me/password", { before, password });
    toast("Your password is another one now.");
  },
  async account({ name, role }) {
    const person = await (await call("/api/accounts", { name, role })).json();
    await invite(person.name);
  },
  async token({ name, role, app, days }) {
    const previews = role === "previews";
    const expires = days ? Date.now() / 1000 + days * 86400 : null;
    const made = await (await call("/api/tokens", { name, app, previews, expires, ...(previews ? {} : { role }) })).json();
    showOnce(`The token ${made.name}`, "Keep it now: it is shown this once.", made.token);
  },
};

async function attempt(doing) {
  try {
    await doing();
  } catch (error) {
    toast(error.message, true);
  }
  await refresh().catch((error) => toast(error.message, true));
}

document.addEventListener("click", ({ target }) => {
  const { action, name } = target.closest("button[data-action]")?.dataset ?? {};
  if (ACTIONS[action]) attempt(() => ACTIONS[action](name));
});
document.addEventListener("change", ({ target }) => {
  const name = target.dataset.roleOf;
  if (name) attempt(() => call(path("accounts", name, "set"), { role: target.value }));
});
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!FORMS[form.dataset.form]) return;
  event.preventDefault();
  attempt(async () => {
    await FORMS[form.dataset.form](Object.fromEntries(new FormData(form)));
    form.reset();
  });
});
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText(byId("secret").textContent).catch(() => {});
  getSelection().selectAllChildren(byId("secret"));
});
byId("once").addEventListener("close", () => say(byId("secret"), ""));
await attempt(() => {});
