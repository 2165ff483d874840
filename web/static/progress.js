// What a deploy looks like after an event, and how long it may still take. Pure; the page draws it.

/** The progress after `event`; a snapshot replaces it, a higher attempt begins it anew, a stale event is ignored. */
function advance(progress, event) {
  if (event.kind === "snapshot") return event;
  if (event.number <= progress.number || event.attempt < progress.attempt) return progress;
  const base = event.attempt > progress.attempt ? afresh(progress, event.attempt) : progress;
  const next = { ...base, number: event.number };
  if (event.kind === "state_changed") {
    next.state = event.after;
    next.ahead = event.ahead ?? 0;
    next.failure = event.failure ?? null;
  }
  if (event.kind === "step_started") {
    next.steps = withStep(next.steps, event.step, { state: "running", began: event.at, seconds: null });
  }
  if (event.kind === "step_finished") {
    next.steps = withStep(next.steps, event.step,
      { state: event.outcome, seconds: event.seconds, note: event.note ?? "" });
  }
  return next;
}

function afresh(progress, attempt) {
  const steps = progress.steps.map((step) =>
    ({ ...step, state: "waiting", began: null, seconds: null, note: "" }));
  return { ...progress, attempt, steps, failure: null, log: [], state: "queued" };
}

function withStep(steps, name, change) {
  const known = steps.some((step) => step.name === name);
  const all = known ? steps : [...steps, { name, state: "waiting", usual: null, note: "" }];
  return all.map((step) => (step.name === name ? { ...step, ...change } : step));
}

/**
 * What is done and what is left, from the medians of earlier deploys. A step without a median is one that the
 * app usually does not have; with no median at all, or for the step that runs, the rest is unknown (null).
 * `part` is done, from 0 to 1; `left` is in seconds.
 */
function estimate(steps, now) {
  const counted = steps.filter((step) => step.name !== "after");
  let known = counted.some((step) => step.usual != null);
  let done = 0, left = 0, over = false;
  for (const { state, began, usual, seconds } of counted) {
    if (state === "waiting") left += usual ?? 0;
    else if (state !== "running") done += usual ?? seconds ?? 0;
    else if (usual == null) known = false;
    else {
      const spent = Math.max(0, now - began);
      done += Math.min(spent, usual);
      left += Math.max(0, usual - spent);
      over ||= spent > usual * 1.2 + 1;
    }
  }
  const finished = counted.filter(({ state }) => state !== "waiting" && state !== "running").length;
  if (!known) return { part: finished / Math.max(1, counted.length), left: null, over };
  return { part: done / Math.max(0.001, done + left), left, over };
}
