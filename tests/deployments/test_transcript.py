"""What a deploy wrote, bounded everywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lazycloud.deployments import transcript
from lazycloud.deployments.steps import StepName
from lazycloud.deployments.transcript import Transcript

Told = list[tuple[StepName, str]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def log(tmp_path: Path, told: Told) -> Iterator[Transcript]:
    log = Transcript(tmp_path / "logs/one.log", lambda step, text: told.append((step, text)))
    log.begin()
    yield log
    log.close()


async def test_output_is_gathered_told_by_step_and_kept_in_a_file(log: Transcript, told: Told) -> None:
    log.write(StepName.SOURCE, "a\n")
    log.write(StepName.SOURCE, "b\n")
    log.write(StepName.BUILD, "c\n")
    log.flush()
    assert told == [(StepName.SOURCE, "a\nb\n"), (StepName.BUILD, "c\n")]
    assert log.path.read_text() == "a\nb\nc\n"


async def test_a_flood_is_bounded_in_memory_in_events_and_on_disk(
    log: Transcript, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "KEPT", 2_000_000)
    for _ in range(400):
        log.write(StepName.BUILD, "x" * 10_000)
    log.flush()
    assert sum(len(text) for _, text in told) < transcript.TOLD + 20_000
    assert told[-1][1].endswith("the whole log has it.\n")
    assert sum(len(chunk["text"]) for chunk in log.shown()) <= transcript.SHOWN
    assert 2_000_000 < log.path.stat().st_size < 2_020_000


async def test_the_end_of_a_flood_and_what_comes_after_it_are_told_and_kept(
    log: Transcript, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "KEPT", 2_000_000)
    for _ in range(400):
        log.write(StepName.BUILD, "x" * 10_000)
    log.write(StepName.BUILD, "the reason\n")
    log.write(StepName.START, "another step\n")
    log.close()
    assert told[-2][0] is StepName.BUILD and told[-2][1].endswith("the reason\n")
    assert told[-1] == (StepName.START, "another step\n")
    assert log.path.read_text().endswith("the reason\nanother step\n")
    assert log.path.stat().st_size < 2_000_000 + transcript.SHOWN + 20_000


async def test_a_new_attempt_begins_with_nothing(log: Transcript) -> None:
    log.write(StepName.SOURCE, "old\n")
    log.begin()
    assert log.shown() == []
    log.flush()
    assert log.path.read_text() == ""


async def test_a_log_that_cannot_be_written_is_still_shown(tmp_path: Path, told: Told) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    log = Transcript(tmp_path / "logs/one.log", lambda step, text: told.append((step, text)))
    log.begin()
    log.write(StepName.BUILD, "a\n")
    log.flush()
    assert told == [(StepName.BUILD, "a\n")]
