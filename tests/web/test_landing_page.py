"""The landing page against a scripted control: what it shows, follows, survives and never does."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from web_stage import IDS, STEPS, Stage, commit, progress, step

from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & {{ 7 * 7 }}"
FAILURE = {
    "step": "build",
    "sentence": "The build command `make` ended with exit status 2.",
    "advice": "Mend the commit.",
    "last": ["cc main.c", "\x1b[31mmain.c:1: error\x1b[0m"],
}

CANCELLED = {
    "step": "",
    "sentence": "The deploy was cancelled by ada.",
    "advice": "It is begun again when somebody asks for that.",
    "last": [],
    "cancelled_by": "ada",
}


def event(number: int, kind: str, attempt: int = 1, **other: Any) -> dict[str, Any]:
    return {"number": number, "kind": kind, "at": 1_010_800, "attempt": attempt} | other


def output(number: int, text: str, name: str = "build", attempt: int = 1) -> dict[str, Any]:
    return event(number, "output", attempt, step=name, text=text)


def state(
    number: int, after: str, failure: object = None, ahead: int = 0, attempt: int = 1
) -> dict[str, Any]:
    change = {"before": "building", "after": after, "reason": "", "failure": failure, "ahead": ahead}
    return event(number, "state_changed", attempt, **change)


def become_app(stage: Stage) -> None:
    stage.page = "message.html"
    stage.facts = {"status": 200, "title": "The app", "sentence": "", "advice": "", "choices": []}
    stage.facts |= {"code": None, "request_id": ""}


async def test_steps_appear_and_the_page_becomes_the_app_at_its_deep_path(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.address}/notes/7?sort=new#last")
    build = page.locator("#steps [data-key=build]")
    await expect(build).to_have_attribute("data-state", "waiting")

    await stage.send(event(11, "step_started", step="build"))
    await expect(build).to_have_attribute("data-state", "running")
    await expect(page.locator("#status")).to_have_text("Building")
    await stage.send(event(12, "step_finished", step="build", outcome="done", seconds=4.21, note="12 files"))
    await expect(build).to_have_attribute("data-state", "done")
    await expect(build.locator(".time")).to_have_text("4.2 s")
    await expect(build.locator(".note")).to_have_text("12 files")

    become_app(stage)
    await stage.send(state(13, "ready"))
    await expect(page.locator("h1")).to_have_text("The app")
    assert page.url == f"{stage.address}/notes/7?sort=new#last"
    assert stage.loads == ["/notes/7?sort=new"] * 2
    assert await page.evaluate("history.length") == 2, "opening the app adds no entry to the history"


async def test_a_page_that_is_ready_again_and_again_reloads_once_a_second(page: Page, stage: Stage) -> None:
    stage.facts["progress"] = progress(state="ready")
    await page.add_init_script("sessionStorage.times = `${sessionStorage.times ?? ''} ${Date.now()}`")
    await page.goto(stage.address)
    await until(lambda: len(stage.loads) >= 4)
    become_app(stage)
    await expect(page.locator("h1")).to_have_text("The app")
    times = [int(at) for at in (await page.evaluate("sessionStorage.times")).split()]
    assert times[3] - times[1] > 1800  # milliseconds


async def test_a_dropped_socket_resumes_after_the_last_number(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    await stage.send(output(41, "one\n"))
    await expect(page.locator("#log")).to_contain_text("one")

    await stage.drop()
    await expect(page.locator("#link")).to_be_visible()
    await until(lambda: len(stage.asked_after) == 2)
    await stage.send(output(41, "one\n"), output(42, "two\n"))
    await expect(page.locator("#link")).to_be_hidden()
    await expect(page.locator("#log .lines")).to_have_text("onetwo")
    assert stage.asked_after == ["10", "41"]


async def test_a_snapshot_replaces_what_the_page_knew(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    await stage.send(output(11, "old\n"))
    await expect(page.locator("#log")).to_contain_text("old")
    fresh = progress(state="starting", number=3, log=[{"step": "start", "text": "new\n"}])
    await stage.send({"kind": "snapshot"} | fresh)
    await expect(page.locator("#log .lines")).to_have_text("new")
    await stage.send(event(4, "step_started", step="start"))
    await expect(page.locator("#status")).to_have_text("Starting the app")


async def test_hostile_subjects_and_logs_are_text(page: Page, stage: Stage) -> None:
    failure = FAILURE | {"sentence": HOSTILE, "advice": HOSTILE, "last": [HOSTILE]}
    hostile = commit(subject=HOSTILE, author=HOSTILE)
    log = [{"step": "build", "text": HOSTILE + "\n"}]
    stage.facts["progress"] = progress(
        commit=hostile, label=HOSTILE, log=log, state="failed", failure=failure
    )
    await page.goto(stage.address)
    await stage.send(output(11, f"\x1b[1m{HOSTILE}\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07\n"))

    await expect(page.locator("h1")).to_have_text(HOSTILE)
    await expect(page.locator("#reason .sentence")).to_have_text(HOSTILE)
    await expect(page.locator("#log .lines > div")).to_have_text([HOSTILE, HOSTILE + "link"])
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("img").count() == 0


async def test_colours_and_overwritten_lines_look_as_in_a_terminal(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    chunks = [
        "10%\r 20%\r100%\n",
        "long line\rshort\x1b[K\n",
        "\x1b[3",
        "1;1mred\x1b[0m \x1b[38;5;196mcube\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m\n",
        "\x1b[2J\x1b[1;1H\x1b(Bplain\x07\x1b]0;title\x1b\\\n",
        "abc\b\bX\n",
    ]
    await stage.send(*(output(11 + i, chunk) for i, chunk in enumerate(chunks)))
    lines = page.locator("#log .lines > div")
    await expect(lines).to_have_text(["100%", "short", "red cube true", "plain", "aXc"])
    styles = await lines.nth(2).evaluate(
        "line => [...line.children].map(s => [s.className, s.style.cssText])"
    )
    assert styles == [
        ["bold named", "--front: var(--ansi-1);"],
        ["tone", "--front: rgb(255,0,0);"],
        ["tone", "--front: rgb(1,2,3);"],
    ]


async def test_the_log_follows_its_end_unless_the_reader_scrolled_up(page: Page, stage: Stage) -> None:
    at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    await page.goto(stage.address)
    log = page.locator("#log")
    await stage.send(output(11, "line\n" * 200))
    await expect(page.locator("#log .lines > div")).to_have_count(200)
    assert await log.evaluate(at_end)

    await log.evaluate("log => { log.scrollTop = 40; }")
    await expect(page.locator("#end")).to_be_visible()
    await stage.send(output(12, "more\n" * 50))
    await expect(page.locator("#log .lines > div")).to_have_count(250)
    assert await log.evaluate("log => log.scrollTop") == 40

    await page.locator("#end").click()
    await expect(page.locator("#end")).to_be_hidden()
    assert await log.evaluate(at_end)


async def test_the_log_keeps_the_last_5000_lines(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    text = "".join(f"line {n}\n" for n in range(6000))
    await stage.send(output(11, "early\n", "source"), output(12, text), output(13, "the end\n", "start"))
    await expect(page.locator("#log section").last).to_contain_text("the end")
    await expect(page.locator("#log .lines > div")).to_have_count(5000)
    await expect(page.locator("#log .lines > div").first).to_have_text("line 1001")


async def test_the_log_can_be_copied(page: Page, stage: Stage) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(stage.address)
    await stage.send(output(11, "\x1b[32mone\x1b[0m\ntwo\n"))
    await expect(page.locator("#log .lines > div")).to_have_count(2)
    await page.get_by_role("button", name="Copy").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == "== build\none\ntwo\n"


async def test_a_failure_says_why_and_is_tried_again_when_asked(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    waiting = await page.locator("#icon").get_attribute("href")
    await stage.send(event(11, "step_started", step="build"), output(12, "cc main.c\n"))
    await stage.send(event(13, "step_finished", step="build", outcome="failed", seconds=1, note=""))
    await stage.send(state(14, "failed", FAILURE))

    await expect(page.locator("#status")).to_have_text("The build failed")
    await expect(page.locator("#reason .sentence")).to_have_text(FAILURE["sentence"])
    await expect(page.locator("#reason .advice")).to_have_text(FAILURE["advice"])
    await expect(page.locator("#reason .last > div")).to_have_text(["cc main.c", "main.c:1: error"])
    await expect(page.locator("#steps [data-key=build]")).to_have_attribute("data-state", "failed")
    await expect(page).to_have_title("Failed · guestbook 3f2a9c1d0b")
    assert await page.locator("#icon").get_attribute("href") != waiting

    await page.get_by_role("button", name="Try again").click()
    await until(lambda: stage.posts == [("/.well-known/lazycloud/retry", {}, "cors")])
    await stage.send(state(15, "building", attempt=2))
    await expect(page.locator("#failure")).to_be_hidden()
    await expect(page.locator("#log")).to_be_empty()
    await expect(page.locator("#steps [data-key=build]")).to_have_attribute("data-state", "waiting")
    await expect(page).to_have_title("Getting ready · guestbook 3f2a9c1d0b")


async def test_of_a_long_failure_the_end_is_in_view(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    await stage.send(
        state(11, "failed", FAILURE | {"last": ["  File"] * 40 + ["NotConfigured: say versionbase = true"]})
    )
    last = page.locator("#reason .last")
    await expect(last.locator("div").last).to_have_text("NotConfigured: say versionbase = true")
    hidden = "pre => pre.scrollHeight - pre.clientHeight - pre.scrollTop"
    assert await last.evaluate(hidden) < 2
    assert await last.evaluate("pre => pre.scrollTop") > 0


async def test_an_app_that_worked_and_then_failed_is_not_said_to_have_written_nothing(
    page: Page, stage: Stage
) -> None:
    stage.facts["progress"] = progress(state="failed", failure={**FAILURE, "step": None})
    await page.goto(stage.address)
    said = await page.locator("#log").evaluate("e => getComputedStyle(e, '::before').content")
    assert "whole log" in said


async def test_a_refused_retry_says_why_and_can_be_pressed_again(page: Page, stage: Stage) -> None:
    stage.facts["progress"] = progress(state="failed", failure=FAILURE)
    stage.error = (503, {"error": {"sentence": "Twenty deploys wait already.", "advice": "Try later."}})
    await page.goto(stage.address)
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator("#trouble")).to_have_text("Twenty deploys wait already. Try later.")
    await expect(page.get_by_role("button", name="Try again")).to_be_enabled()


async def test_a_deploy_is_cancelled_where_that_is_allowed_and_says_by_whom(page: Page, stage: Stage) -> None:
    await page.goto(stage.address)
    await page.get_by_role("button", name="Cancel").click()
    await until(lambda: stage.posts == [("/.well-known/lazycloud/cancel", {}, "cors")])
    await stage.send(state(11, "stopping", CANCELLED), state(12, "failed", CANCELLED))
    await expect(page.locator("#status")).to_have_text("Cancelled")
    await expect(page).to_have_title("Cancelled · guestbook 3f2a9c1d0b")
    await expect(page.locator("#reason .sentence")).to_have_text("The deploy was cancelled by ada.")
    await expect(page.get_by_role("button", name="Try again")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    stage.facts["may_cancel"] = False
    await page.goto(stage.address)
    await expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


@pytest.mark.parametrize(("ahead", "words"), [(0, "Next in line"), (1, "Waiting for one other deploy")])
async def test_the_place_in_the_queue_is_told(page: Page, stage: Stage, ahead: int, words: str) -> None:
    await page.goto(stage.address)
    await stage.send(state(11, "queued", ahead=ahead))
    await expect(page.locator("#status")).to_have_text(words)


RUNNING = {"state": "running", "began": 1_010_790.0}
SCENES = {
    "cold, seen before": progress(state="cold", steps=[step("source", usual=0.4), step("build", usual=13)]),
    "cold, never seen": progress(state="cold"),
    "queued": progress(state="queued", ahead=3),
    "half way": progress(steps=[step("source", "done", seconds=75.0), step("build", usual=40, **RUNNING)]),
    "too long": progress(steps=[step("build", usual=4, **RUNNING), step("start", usual=1)]),
    "unknown": progress(steps=[step("source", "reused", seconds=0.01, usual=1), step("build", **RUNNING)]),
    "skipped": progress(state="starting", steps=[step("release", "skipped"), step("start", **RUNNING)]),
    "failed": progress(state="failed", failure=FAILURE, steps=[step("build", "failed", seconds=4000)]),
    "cancelled": progress(state="failed", failure=CANCELLED),
    "stopped": progress(state="stopped"),
    "an hour": progress(commit=commit(authored=1_010_800 - 3600), label="main", version="production"),
}
VISIBLE = """() => [document.title, document.getElementById('left').textContent,
    ...[...document.querySelectorAll(
        '#status, .eyebrow, .about, #reason p, #reason .last, #steps li, #steps .note, #steps .usual')]
        .map(e => e.textContent.replace(/\\s+/g, ' ').trim().replace(/1\\d(\\.\\d)? s$/, '10 s'))]"""


@pytest.mark.parametrize("name", SCENES)
async def test_the_page_says_the_same_with_and_without_scripts(
    browser: Browser, page: Page, stage: Stage, name: str
) -> None:
    stage.facts = {"progress": SCENES[name], "may_cancel": True, "noscript_refresh": 60}
    await page.goto(stage.address)
    await until(lambda: bool(stage.asked_after))
    plain = await browser.new_context(java_script_enabled=False)
    still = await plain.new_page()
    await still.goto(stage.address)
    # Without scripts the browser still evaluates for us; the page's own never ran.
    assert await page.evaluate(VISIBLE) == await still.evaluate(VISIBLE)
    await plain.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cold, seen before", "usually takes about 13 s"),
        ("half way", "about 30 s left"),
        ("too long", "longer than usual"),
        ("unknown", ""),
        ("cold, never seen", ""),
        ("failed", ""),
    ],
)
async def test_what_is_left_is_told_only_when_it_is_known(
    page: Page, stage: Stage, name: str, words: str
) -> None:
    stage.facts["progress"] = SCENES[name]
    await page.goto(stage.address)
    await expect(page.locator("#left")).to_have_text(words)


async def test_the_clock_of_the_running_step_runs(page: Page, stage: Stage) -> None:
    stage.facts["progress"] = SCENES["half way"]
    await page.goto(stage.address)
    await expect(page.locator("[data-key=build] .time")).to_have_text("12 s")


async def test_without_scripts_the_page_refreshes_itself(browser: Browser, stage: Stage) -> None:
    log = [{"step": "build", "text": "\x1b[1;32mgreen\x1b[0m\n10%\r99%\n\x1b]0;t\x07last"}]
    stage.facts = {"progress": progress(log=log), "may_cancel": True, "noscript_refresh": 1}
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{stage.address}/deep?a=1")
    await expect(page.locator("#log .lines > div")).to_have_text(["green", "99%", "last"])
    await until(lambda: stage.loads[1:2] == ["/deep?a=1"])
    await context.close()


async def test_without_scripts_a_failure_stays_and_is_retried_by_a_form(
    browser: Browser, stage: Stage
) -> None:
    stage.facts = {
        "progress": progress(state="failed", failure=FAILURE),
        "may_cancel": True,
        "noscript_refresh": 1,
    }
    assert "http-equiv" not in stage.render()
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(stage.address)
    await expect(page.locator("#reason .last > div")).to_have_text(["cc main.c", "main.c:1: error"])
    await page.get_by_role("button", name="Try again").click()
    await until(lambda: stage.posts == [("/.well-known/lazycloud/retry", {}, "navigate")])
    await context.close()


async def test_the_state_is_announced_once_and_politely(page: Page, stage: Stage) -> None:
    stage.facts["progress"] = progress(steps=[step(name, usual=9) for name in STEPS])
    await page.goto(stage.address)
    await page.evaluate(
        """() => { window.said = []; const status = document.getElementById('status');
        new MutationObserver(() => said.push(status.textContent))
            .observe(status, {childList: true, subtree: true, characterData: true}); }"""
    )
    await stage.send(event(11, "step_started", step="build"), output(12, "x\n" * 40))
    await expect(page.locator("#log .lines > div")).to_have_count(40)
    await stage.send(event(13, "step_started", step="data"))
    await stage.send(event(14, "step_finished", step="build", outcome="done", seconds=1, note=""))
    await expect(page.locator("#status")).to_have_text("Making its own copy of the data")
    assert await page.evaluate("said") == ["Building", "Making its own copy of the data"]
    assert await page.locator("#status").get_attribute("aria-live") == "polite"


async def test_the_page_never_speaks_of_status_codes(page: Page, stage: Stage) -> None:
    stage.facts["progress"] = progress(version="production", commit=commit(IDS["other"]))
    await page.goto(stage.address)
    assert "503" not in await page.locator("body").inner_text()
