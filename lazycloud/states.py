"""The life of a deployment: its states, what moves it, and the one table that says where to. Pure.

`python -m lazycloud.states` draws docs/states.md from it.
"""

from __future__ import annotations

from enum import Enum

from lazycloud.errors import LazycloudError


class State(Enum):
    COLD = "cold"
    QUEUED = "queued"
    BUILDING = "building"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


MEANING: dict[State, str] = {
    State.COLD: "never deployed here, or passed by",
    State.QUEUED: "waits for its turn",
    State.BUILDING: "source, dependencies, build, data, release",
    State.STARTING: "its workers run, and are not ready yet",
    State.READY: "requests go to its workers",
    State.RESTARTING: "its last worker ended; it is started again after a pause, and requests wait",
    State.FAILED: "a step failed, the worker ended again and again, its data are too large, or somebody cancelled; "
    "waits to be asked again",
    State.STOPPING: "its workers are told to end",
    State.STOPPED: "sleeps: built before, with its data as it was; the next request starts it",
}


class Cause(Enum):
    ASKED = "asked for"
    TURN_CAME = "its turn came"
    LAUNCHED = "the worker was launched"
    ANSWERED = "the worker is ready"
    BUILT = "no worker was to be started"
    SUPERSEDED = "a newer commit of its branch came"
    BROKE = "a step failed"
    CRASHED = "the worker ended again and again"
    OUTGREW = "its data outgrew their limit"
    ENDED = "the worker ended"
    QUIT = "the worker ended without an error"
    AGAIN = "the pause is over"
    IDLE = "nobody visited it for a while"
    ROOM = "room was needed for another"
    STOP = "told to stop"
    CANCEL = "told to cancel"
    CANCELLED = "it was cancelled"
    GONE = "all of it is stopped"
    ADOPTED = "its worker was found running"


TABLE: dict[tuple[State, Cause], State] = {
    (State.COLD, Cause.ASKED): State.QUEUED,
    (State.COLD, Cause.ADOPTED): State.READY,
    (State.QUEUED, Cause.TURN_CAME): State.BUILDING,
    (State.QUEUED, Cause.SUPERSEDED): State.COLD,
    (State.QUEUED, Cause.BROKE): State.FAILED,
    (State.QUEUED, Cause.STOP): State.STOPPING,
    (State.QUEUED, Cause.CANCEL): State.STOPPING,
    (State.BUILDING, Cause.LAUNCHED): State.STARTING,
    (State.BUILDING, Cause.BUILT): State.STOPPED,
    (State.BUILDING, Cause.BROKE): State.FAILED,
    (State.BUILDING, Cause.STOP): State.STOPPING,
    (State.BUILDING, Cause.CANCEL): State.STOPPING,
    (State.STARTING, Cause.ANSWERED): State.READY,
    (State.STARTING, Cause.BROKE): State.FAILED,
    (State.STARTING, Cause.STOP): State.STOPPING,
    (State.STARTING, Cause.CANCEL): State.STOPPING,
    (State.READY, Cause.ENDED): State.RESTARTING,
    (State.READY, Cause.CRASHED): State.FAILED,
    (State.READY, Cause.OUTGREW): State.FAILED,
    (State.READY, Cause.QUIT): State.STOPPED,
    (State.READY, Cause.STOP): State.STOPPING,
    (State.READY, Cause.IDLE): State.STOPPING,
    (State.READY, Cause.ROOM): State.STOPPING,
    (State.RESTARTING, Cause.AGAIN): State.QUEUED,
    (State.RESTARTING, Cause.ASKED): State.QUEUED,
    (State.RESTARTING, Cause.STOP): State.STOPPING,
    (State.RESTARTING, Cause.CANCEL): State.STOPPING,
    (State.STOPPING, Cause.GONE): State.STOPPED,
    (State.STOPPING, Cause.CANCELLED): State.FAILED,
    (State.STOPPED, Cause.ASKED): State.QUEUED,
    (State.STOPPED, Cause.ADOPTED): State.READY,
    (State.FAILED, Cause.ASKED): State.QUEUED,
    (State.FAILED, Cause.ADOPTED): State.READY,
}

DEPLOYING = frozenset({State.QUEUED, State.BUILDING, State.STARTING})
"""Work goes on, and will end in READY, FAILED or STOPPED."""

PASSING = DEPLOYING | {State.RESTARTING, State.STOPPING}
"""Will be another by itself: who waits for it need not ask."""


class ImpossibleTransition(LazycloudError):
    """A bug of ours: the table has no such row."""

    def __init__(self, state: State, cause: Cause) -> None:
        super().__init__(f"A deployment that is {state.value} cannot go on because {cause.value}.")


def advance(state: State, cause: Cause) -> State:
    """The state that follows; raises ImpossibleTransition."""
    try:
        return TABLE[state, cause]
    except KeyError:
        raise ImpossibleTransition(state, cause) from None


def page() -> str:
    """docs/states.md: the table as a diagram, and in words."""
    return "\n".join([_HEAD, "```mermaid", *_diagram(), "```", "", *_rows(), ""])


_HEAD = """# The states of a deployment

Drawn from the table in `lazycloud/states.py` by `make states`. What moves a deployment is looked up there, in one
place; what the table does not have is refused. Each change is one event (`state_changed`), whose `reason` is one of
these words.
"""


def _arrows(state: State) -> dict[State, list[str]]:
    """Where to from a state, and because of what."""
    arrows: dict[State, list[str]] = {}
    for (before, cause), after in TABLE.items():
        if before is state:
            arrows.setdefault(after, []).append(cause.value)
    return arrows


def _diagram() -> list[str]:
    lines = ["stateDiagram-v2", f"    [*] --> {State.COLD.value}"]
    for state in State:
        for after, causes in _arrows(state).items():
            lines.append(f"    {state.value} --> {after.value}: {', '.join(causes)}")
    return lines


def _rows() -> list[str]:
    rows = ["| state | what it means | what moves it where |", "| --- | --- | --- |"]
    for state in State:
        ways = [f"{', '.join(causes)} → {after.value}" for after, causes in _arrows(state).items()]
        rows.append(f"| **{state.value}** | {MEANING[state]} | {'<br>'.join(ways)} |")
    return rows


if __name__ == "__main__":
    print(page(), end="")
