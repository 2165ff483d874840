// The control page: draws /api/overview, follows the events, and asks for what its buttons say.

const WORDS = { cold: "asleep", queued: "in line", ready: "up" };
let seen = null; // the overview that is shown
let number = 0; // the last event seen
let skew = 0; // seconds from this clock to the server's
let timer = 0, fetched = 0;
const busy = new Set(); // addresses of writes under way
const mayChange = () => seen.me.role !== "viewer"; // who may not is shown no button for it

const since = (at) => ago(Date.now() / 1000 + skew - at);
const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const isBusy = (state) => ["queued", "building", "starting"].includes(state);

/** A button that does `action` (a key of ACTIONS) with the facts in `data`. */
function actionButton(text, about, action, path, data = {}, look = "quiet") {
  const facts = Object.entries({ action, path, ...data }).map(([name, value]) => [`data-${name}`, value]);
  return h("button", { type: "button", class: look, "aria-label": `${text} ${about}`, disabled: busy.has(path),
    ...Object.fromEntries(facts) }, text);
}

const dots = (...parts) => parts.filter(Boolean).flatMap((part, i) => (i ? [" · ", part] : [part]));
const id = (commit) => h("code", { title: commit.id }, commit.short);
const dot = (state) => h("span", { class: "dot", "data-state": state, "aria-hidden": "true" });
const bare = (address) => address.replace(/^https?:\/\//, "").replace(/\/$/, "");
const empty = (text, command) => h("p", { class: "empty" }, text, " ", h("code", {}, command));

function productionCard(app) {
  const { production: now, name } = app;
  if (!now) return empty("Nothing is in production yet. Promote a commit, or run", `lazycloud promote ${app.default_branch ?? ""}`.trim());
  const before = previous(app);
  return h("div", { class: "production" },
    h("p", { class: "kind" }, dot(now.state), `Production, ${WORDS[now.state] ?? now.state}`),
    h("p", { class: "address" }, h("a", { href: now.address }, bare(now.address))),
    h("p", {}, h("bdi", {}, now.commit.subject)),
    h("p", { class: "about" }, ...dots(id(now.commit), since(now.since), now.who && `by ${now.who}`, now.why && `“${now.why}”`)),
    before && mayChange() && actionButton("Roll back", name, "rollback", `/api/apps/${encodeURIComponent(name)}/rollback`,
      { about: `${before.short} “${before.subject}” becomes production again.`, app: name }, ""));
}

/** What production was before it was what it is. */
function previous({ production, history }) {
  return [...history].sort((a, b) => b.at - a.at).find(({ commit }) => commit.id !== production.commit.id)?.commit;
}

function commitRow(app, row) {
  const { commit, state, deployment, failure } = row;
  return h("li", { "data-key": commit.id, class: "commit" },
    dot(state),
    h("div", {},
      h("p", {}, h("a", { class: "subject", href: row.address }, h("bdi", {}, commit.subject || commit.short)),
        row.refs.map((ref) => h("span", { class: "tag" }, ref)),
        row.is_production && h("span", { class: "tag live" }, "production")),
      h("p", { class: "about" }, ...dots(id(commit), commit.author, since(commit.authored), stateWords(row))),
      failure && h("p", { class: "wrong" }, failure)),
    mayChange() && h("p", { class: "actions" }, ...commitActions(app, row), shareButton(app, row), deployment &&
      h("a", { class: "quiet", href: `/visit?to=${encodeURIComponent(`${row.address}.well-known/lazycloud/log`)}`, "aria-label": `Log ${commit.short}` }, "Log")));
}

/** Production's commit has a preview as well, which sleeps most of the time while production does not. */
function stateWords({ state, is_production: isProduction }) {
  const words = WORDS[state] ?? state;
  return isProduction ? `preview ${words}` : words;
}

function commitActions(app, { commit, state, deployment, is_production: isProduction }) {
  const place = `/api/apps/${encodeURIComponent(app)}`;
  const idle = state === "cold" || state === "stopped" || state === "failed";
  return [
    !isProduction && state !== "failed" && actionButton("Promote", commit.short, "promote", `${place}/promote#${commit.id}`,
      { id: commit.id, app, about: `${commit.short} “${commit.subject}”` }),
    idle && actionButton(state === "failed" ? "Retry" : "Deploy", commit.short, "deploy", `${place}/deploy#${commit.id}`, { id: commit.id }),
    isBusy(state) && actionButton("Cancel", commit.short, "cancel", `${place}/cancel#${commit.id}`, { id: commit.id }),
    deployment && !isProduction && state === "ready" && stopButton(deployment, commit),
  ];
}

/** Of one that is kept warm no ref tells: it has the data of production, and is not that. */
const restartButton = ({ app, commit, version, production }) => (production || version === commit.id) &&
  actionButton("Restart", commit.short, "restart", `/api/apps/${encodeURIComponent(app)}/restart#${version}`,
    { id: production ? "production" : commit.id });

const stopButton = (deployment, commit) =>
  actionButton("Stop", commit.short, "stop", `/api/deployments/${encodeURIComponent(deployment)}/stop`);

/** Where not everybody may see previews. */
function shareButton(app, { commit }) {
  const shut = seen.apps.find(({ name }) => name === app)?.previews !== "public";
  return shut && actionButton("Share", commit.short, "share", `/api/apps/${encodeURIComponent(app)}/share#${commit.id}`,
    { id: commit.id, about: `“${commit.subject}”` });
}

/** A fork's pull request: strangers' code, which somebody has to allow. */
function pullItem(app, pull) {
  const { number, commit, title, author, url, at, waits, allowed, address } = pull;
  const short = commit.slice(0, 10), name = h("bdi", {}, title || `Pull request ${number}`);
  return h("li", { "data-key": `pull-${number}`, class: "commit" },
    h("span", { class: "dot", "data-state": waits ? "cold" : "ready", "aria-hidden": "true" }),
    h("div", {},
      h("p", {}, url ? h("a", { class: "subject", href: url, rel: "noreferrer" }, name) : name,
        h("span", { class: "tag" }, `pull request ${number}`)),
      h("p", { class: "about" }, ...dots(h("code", { title: commit }, short), author && `by ${author}`, since(at), waits ? "waits to be allowed" : "allowed",
        allowed && h("a", { href: address }, allowed.slice(0, 10))))),
    waits && mayChange() && h("p", { class: "actions" },
      actionButton("Allow", `pull request ${number}`, "allow", `/api/apps/${encodeURIComponent(app)}/pulls/${number}/allow`,
        { id: commit, number, about: `“${title}” by ${author || "somebody"}, at ${commit},` })));
}

function appSection(app) {
  const title = `app-${app.name}`;
  return h("section", { "data-key": app.name, "aria-labelledby": title },
    h("header", {}, h("h2", { id: title }, app.name), h("code", {}, app.source),
      app.follow && h("span", { class: "tag" }, `follows ${app.follow}`),
      h("a", { class: "quiet", href: `/apps/${encodeURIComponent(app.name)}/data`, "aria-label": `Data of ${app.name}` }, "Data")),
    (app.production || app.commits.length > 0) && productionCard(app),
    app.pulls?.length > 0 && h("ol", { class: "commits pulls", "aria-label": "Pull requests of forks" },
      app.pulls.map((pull) => pullItem(app.name, pull))),
    app.commits.length
      ? h("ol", { class: "commits" }, app.commits.map((row) => commitRow(app.name, row)))
      : empty("No commit yet. In the repository, run", "git commit"));
}

function runningItem(one) {
  const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", { class: "number" }, value));
  return h("li", { "data-key": one.deployment, class: "worker" },
    h("p", {}, h("a", { href: one.address }, one.app, " ", h("code", {}, one.commit.short)),
      one.production && h("span", { class: "tag live" }, "production"),
      !one.production && one.version === "production" && h("span", { class: "tag" }, "kept warm"),
      mayChange() && one.state === "ready" && restartButton(one),
      !one.production && mayChange() && stopButton(one.deployment, one.commit)),
    h("dl", {}, figure("Memory", megabytes(one.memory)), figure("CPU", `${one.cpu.toFixed(one.cpu < 10 ? 1 : 0)} %`),
      figure("Requests", one.requests.toLocaleString("en")), figure("Errors", one.errors.toLocaleString("en"))),
    h("p", { class: "about" }, ...dots(
      one.last ? `last asked ${since(one.last)}` : `up since ${since(one.since)}, not asked yet`,
      one.processes?.length > 1 && one.processes.map(({ name }) => name).join(", "),
      one.pinned && "pinned", one.restarts > 0 && `${one.restarts} restart${one.restarts === 1 ? "" : "s"}`)),
    one.last_end && !one.last_end.expected && h("p", { class: "wrong" }, `${one.last_end.process} ${one.last_end.how}, ${since(one.last_end.at)}`));
}

function eventItem(event) {
  return h("li", { "data-key": event.number },
    h("p", {}, event.sentence), h("p", { class: "about" }, ...dots(event.app, since(event.at))));
}

function draw() {
  if (!seen) return;
  const { apps, running, events } = seen;
  const list = (name, items) => h("ol", { class: name }, items);
  fill(byId("apps"), apps.length ? apps.map(appSection) : [empty("No app yet. In a git repository, run", "lazycloud up .")]);
  fill(byId("running"), [running.length ? list("workers", running.map(runningItem))
    : empty("Nothing runs. Open a commit and it wakes up:", "lazycloud open")]);
  fill(byId("events"), [events.length ? list("events", events.map(eventItem)) : empty("Quiet so far. Try", "git commit")]);
  byId("apps").removeAttribute("aria-busy");
}

async function refresh() {
  fetched = Date.now();
  const answer = await call("/api/overview");
  skew = (Date.parse(answer.headers.get("Date")) || Date.now()) / 1000 - Date.now() / 1000;
  seen = await answer.json();
  number = Math.max(number, seen.events[0]?.number ?? 0);
  draw();
}

/** Fetch again, once for a burst of events and at most once a second. */
function soon() {
  timer ||= setTimeout(() => {
    timer = 0;
    refresh().catch(() => {}); // the next event or the clock asks again
  }, Math.max(300, fetched + 1000 - Date.now()));
}

/** Ask in the dialog; the reason that was given ("" if none), or null for no. */
function ask(title, about, verb, wantsReason) {
  const dialog = byId("ask");
  say(byId("ask-title"), title);
  say(byId("ask-about"), about);
  say(byId("ask-yes"), verb);
  byId("ask-reason").hidden = !wantsReason;
  byId("why").value = dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? byId("why").value.trim() : null), { once: true });
  });
}

/** Show a text to be copied; it is copied already where the browser lets us. */
function handOver(title, text) {
  const dialog = byId("hand");
  say(byId("hand-title"), title);
  byId("hand-text").value = text;
  dialog.showModal();
  byId("hand-text").select();
  navigator.clipboard?.writeText(text).catch(() => {});
}

/** What to send, or null when the reader thought better of it; and what to say when it was done. */
const ACTIONS = {
  async promote({ id, app, about }) {
    const why = await ask(`Promote to production of ${app}?`, about, "Promote", true);
    return why == null ? null : { body: { commit: id, why }, done: `${id.slice(0, 10)} is production of ${app}.` };
  },
  async rollback({ app, about }) {
    const why = await ask(`Roll back ${app}?`, about, "Roll back", false);
    return why == null ? null : { body: {}, done: `${app} is rolled back.` };
  },
  async share({ id, about }) {
    const yes = await ask(`Share ${id.slice(0, 10)}?`, `Whoever has the link may see ${about} for a week, without a login.`, "Make a link", false);
    return yes == null ? null : { body: { ref: id }, after: ({ url, short }) => handOver(`Whoever has this link may see ${short}`, url) };
  },
  async allow({ id, number, about }) {
    const warning = `${about} is a stranger’s code. Once you allow this commit, it is built and run here as your own are. Have you looked at it?`;
    const yes = await ask(`Allow pull request ${number}?`, warning, "Allow it", false);
    return yes == null ? null : { body: { commit: id }, done: `${id.slice(0, 10)} of pull request ${number} is allowed.` };
  },
  deploy: async ({ id }) => ({ body: { ref: id } }),
  cancel: async ({ id }) => ({ body: { ref: id } }),
  stop: async () => ({ body: {} }),
  restart: async ({ id }) => ({ body: { ref: id }, done: "Its workers are new." }),
};

async function act({ action, path, ...facts }) {
  const wish = await ACTIONS[action](facts);
  if (!wish) return;
  busy.add(path);
  draw();
  try {
    const answer = await call(path.split("#")[0], wish.body);
    if (wish.done) toast(wish.done);
    wish.after?.(await answer.json());
  } catch (error) {
    toast(error.message, true);
  }
  busy.delete(path);
  draw();
  soon();
}

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-action]");
  if (ACTIONS[button?.dataset.action]) act(button.dataset);
});
setInterval(() => { if (!document.hidden) soon(); }, 5000);
await refresh().catch((error) => toast(error.message, true));
follow("/api/follow", () => number, (event) => {
  number = Math.max(number, event.number);
  soon();
}, (connected) => { byId("link").hidden = connected; });
