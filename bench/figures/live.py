"""What many live commits of one app take in memory."""

from __future__ import annotations

import measure
from answer import first_200
from app import DEMO, FLASK, App
from checkout import served
from figures import Column, Figure
from figures.deploys import WITHOUT
from run import Row
from trials import OURS, PLAIN, Trials, scratch


def live(trials: Trials) -> list[Row]:
    """The proportional set size of server and workers: before, and with all commits woken one after another."""
    modes = {OURS: "", WITHOUT: PLAIN} if trials.preloads else {WITHOUT: ""}
    apps = [app for app in (DEMO, FLASK) if trials.only in app.name]
    return [_live(trials, app, mode, settings) for app in apps for mode, settings in modes.items()]


def _live(trials: Trials, app: App, mode: str, settings: str) -> Row:
    with scratch() as folder, served(folder, app) as checkout:
        checkout.deploy(settings)  # what is made once for all commits is there before we count
        if mode == OURS and app.is_preloaded:
            trials.until_preloaded(app.name, checkout.deploy)
        before = measure.pss(checkout.server.pid)
        for number in range(trials.commits):
            trials.say(f"{app.name}, {mode}, {number + 1} of {trials.commits}")
            checkout.commit_quietly(settings)
            first_200(checkout.server.port, checkout.host)
        after = measure.pss(checkout.server.pid)
        running = len(checkout.api.get("/api/ps")) - 1  # production is one more
    values = {"before": before, "after": after, "each": (after - before) / trials.commits}
    trouble = "" if running == trials.commits else f"{running} of {trials.commits} were live at the end"
    return Row(f"{app.name}, {trials.commits} commits", mode, values, trouble)


FIGURES = (
    Figure(
        "live",
        "Memory of many live commits",
        "what it is, without a target",
        (
            Column("before", "MiB before", "{:.0f}", 2**-20),
            Column("after", "MiB with them", "{:.0f}", 2**-20),
            Column("each", "MiB each", "{:.1f}", 2**-20),
        ),
        live,
        lambda rows: [],
    ),
)
