// Versions of data and their snapshots: what they are called, in which order they come, and as choices.

const WHYS = {
  promote: "before a promote", release: "before a release command", restore: "before a restore",
  timer: "by the clock", fork: "for a fork",
};
const titleOf = ({ name, why, who }) => name || WHYS[why] || (who ? `taken by ${who}` : "asked for");

/** When a version's data were the same as its source's. */
const began = (version, origin) => origin?.snapshots.find(({ id }) => id === version.snapshot)?.at ?? version.forked;

/** As a tree, each followed by what was forked from it, the newest first: so no line crosses another. */
function inOrder(versions) {
  const byName = new Map(versions.map((version) => [version.name, version]));
  const of = (version) => byName.get(version.source);
  const start = (version) => began(version, of(version));
  const children = new Map();
  for (const version of versions) children.set(of(version), [...children.get(of(version)) ?? [], version]);
  const walk = (parent, seen) => (children.get(parent) ?? []).toSorted((a, b) => b.production - a.production || start(b) - start(a))
    .flatMap((each) => (seen.has(each) ? [] : [each, ...walk(each, seen.add(each))]));
  const seen = new Set();
  const found = walk(undefined, seen);
  return [...found, ...versions.filter((each) => !found.includes(each))]; // what says that it comes of itself
}

/** The options of a select: each version as it is now, and its snapshots; `since(at)` says when in words. */
function pointOptions(versions, since) {
  return inOrder(versions).filter(({ pending }) => !pending).map((version) => h("optgroup", { label: version.production ? "production" : `${version.label} ${version.subject}` },
    h("option", { value: version.name }, `${version.label}, now`),
    version.snapshots.toSorted((a, b) => b.at - a.at).map((snapshot) => h("option", { value: `${version.name}@${snapshot.id}` },
      snapshot.name ? `${version.label}@${snapshot.name}` : `${version.label}, ${titleOf(snapshot)}, ${since(snapshot.at)}`))));
}
