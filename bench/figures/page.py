"""From the end of a deploy to the app's page in a browser that has been watching it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

from app import FLASK
from checkout import Checkout, served
from figures import Column, Figure
from peer import CannotRun
from run import Row, Sample
from trials import OURS, Trials, scratch

_PATIENCE = 60_000  # milliseconds
# Of the page that is shown: unix times, in seconds.
_TIMES = """() => {
    const page = performance.getEntriesByType("navigation")[0];
    const at = (time) => (performance.timeOrigin + time) / 1000;
    return {asked: at(page.requestStart), answered: at(page.responseStart), opened: at(page.loadEventEnd)};
}"""


def page(trials: Trials) -> list[Row]:
    """A cold commit is opened in Chromium; its landing page gives way to the app."""
    with scratch() as folder, served(folder, FLASK) as checkout, _browser() as browser:
        ways = {OURS: lambda: _watched(checkout, browser)}
        return trials.interleaved(FLASK.name, ways, warm=2)


def _watched(checkout: Checkout, browser: Page) -> Sample:
    checkout.commit_quietly()
    browser.goto(f"http://{checkout.host}/")
    title = checkout.shown.removeprefix("<title>")
    browser.wait_for_function(
        "title => document.title === title && document.readyState === 'complete'",
        arg=title,
        timeout=_PATIENCE,
    )
    times = browser.evaluate(_TIMES)
    ready = next(step for step in checkout.inspect()["steps"] if step["name"] == "ready")
    ended = ready["began"] + ready["seconds"]
    browser.goto("about:blank")
    checkout.stop()
    return Sample({"seconds": times["opened"] - ended} | {name: times[name] - ended for name in times})


@contextlib.contextmanager
def _browser() -> Iterator[Page]:
    program = os.environ.get("LAZYCLOUD_TEST_CHROMIUM") or shutil.which("chromium")
    if not program:
        raise CannotRun("chromium is needed for it (apt: chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


FIGURES = (
    Figure(
        "page",
        "From the last event of a deploy to the page in Chromium",
        "what it is, without a target",
        (
            Column("asked", "asked for, ms", "{:.0f}", 1e3),
            Column("answered", "first byte ms", "{:.0f}", 1e3),
            Column("seconds", "opened ms", "{:.0f}", 1e3),
            Column("q1", "from", "{:.0f}", 1e3),
            Column("q3", "to", "{:.0f}", 1e3),
        ),
        page,
        lambda rows: [],
    ),
)
