"""The transition table of a deployment."""

from pathlib import Path

import pytest

from lazycloud.states import DEPLOYING, MEANING, TABLE, Cause, ImpossibleTransition, State, advance, page

PAGE = Path(__file__).parents[1] / "docs" / "states.md"


def test_a_deploy_goes_from_cold_to_ready() -> None:
    state = State.COLD
    for cause in (Cause.ASKED, Cause.TURN_CAME, Cause.LAUNCHED, Cause.ANSWERED):
        state = advance(state, cause)
    assert state is State.READY


def test_whatever_can_break_can_be_asked_for_again() -> None:
    broken = {advance(state, cause) for state, cause in TABLE if cause in (Cause.BROKE, Cause.CRASHED)}
    assert broken == {State.FAILED}
    assert advance(State.FAILED, Cause.ASKED) is State.QUEUED


@pytest.mark.parametrize("state", sorted(DEPLOYING | {State.READY}, key=lambda state: state.value))
def test_whatever_works_can_be_told_to_stop(state: State) -> None:
    assert advance(advance(state, Cause.STOP), Cause.GONE) is State.STOPPED


@pytest.mark.parametrize("state", sorted(DEPLOYING, key=lambda state: state.value))
def test_a_cancelled_deploy_waits_to_be_asked_again(state: State) -> None:
    assert advance(advance(state, Cause.CANCEL), Cause.CANCELLED) is State.FAILED


def test_every_state_is_reached_and_none_is_a_dead_end() -> None:
    assert set(TABLE.values()) == set(State)
    assert {before for before, _ in TABLE} == set(State)


def test_what_the_table_does_not_have_is_refused_in_words() -> None:
    with pytest.raises(ImpossibleTransition, match="ready cannot go on because its turn came"):
        advance(State.READY, Cause.TURN_CAME)


def test_the_page_of_the_docs_is_drawn_from_the_table() -> None:
    assert PAGE.read_text() == page(), "`make states` draws it again"


def test_the_page_has_every_state_and_every_transition() -> None:
    text = page()
    for (before, cause), after in TABLE.items():
        (arrow,) = [
            line for line in text.splitlines() if line.startswith(f"    {before.value} --> {after.value}: ")
        ]
        assert cause.value in arrow.partition(": ")[2].split(", ")
    for state in State:
        assert f"| **{state.value}** | {MEANING[state]} | " in text
