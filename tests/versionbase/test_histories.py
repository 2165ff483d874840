"""The checker of histories itself: it names each anomaly in a history made to have it, and accepts good ones."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.versionbase.histories import Append, Operation, Outcome, Read, Transaction, Write, check


def r(key: str, *elements: int) -> Read:
    return Read(key, elements)


def v(key: str, value: int | None) -> Read:
    return Read(key, value)


def a(key: str, element: int) -> Append:
    return Append(key, element)


def w(key: str, value: int) -> Write:
    return Write(key, value)


def t(
    name: str, *operations: Operation, at: tuple[float, float] = (0, 100), outcome: Outcome = "done"
) -> Transaction:
    """All at once, unless it says when."""
    return Transaction(name, operations, *at, outcome)


GOOD = {
    "nothing": [],
    "one after the other": [
        t("T1", a("x", 1), at=(0, 1)),
        t("T2", r("x", 1), a("x", 2), at=(2, 3)),
        t("T3", r("x", 1, 2), at=(4, 5)),
    ],
    "beside each other, in the order of neither's name": [
        t("T1", r("x", 2), a("x", 1)),
        t("T2", r("x"), a("x", 2)),
    ],
    "its own is seen": [t("T1", a("x", 1), r("x", 1), a("x", 2), r("x", 1, 2))],
    "its own at the end of what it has not read": [t("T1", a("x", 1)), t("T2", a("x", 2), r("x", 1, 2))],
    "refused, and not seen": [t("T1", a("x", 1), outcome="refused"), t("T2", r("x"))],
    "unknown, and seen": [t("T1", a("x", 1), at=(0, 1), outcome="unknown"), t("T2", r("x", 1), at=(2, 3))],
    "unknown, and not seen": [
        t("T1", a("x", 1), a("y", 2), at=(0, 1), outcome="unknown"),
        t("T2", r("x"), at=(2, 3)),
    ],
    "unknown, and done later": [
        t("T1", a("x", 1), at=(0, 1), outcome="unknown"),
        t("T2", r("x"), at=(2, 3)),
        t("T3", r("x", 1), at=(4, 5)),
    ],
    "a register": [t("T1", v("x", None), w("x", 1)), t("T2", v("x", 1), w("x", 2)), t("T3", v("x", 1))],
    "a reader beside a writer": [
        t("T1", a("x", 1), a("y", 1)),
        t("T2", r("x"), r("y")),
        t("T3", r("x", 1), r("y", 1)),
    ],
    "written blindly": [t("T1", a("x", 1)), t("T2", a("x", 2)), t("T3", r("x", 2, 1))],
}

BAD = {
    "dirty read (aborted)": [
        [t("T1", a("x", 1), outcome="refused"), t("T2", r("x", 1))],
        [t("T1", a("x", 1), outcome="refused"), t("T2", a("x", 2)), t("T3", r("x", 1, 2))],
        [t("T1", v("x", None), w("x", 1), outcome="refused"), t("T2", v("x", 1))],
    ],
    "dirty read (intermediate)": [
        [t("T1", a("x", 1), a("x", 2)), t("T2", r("x", 1))],
        [t("T1", v("x", None), w("x", 1), w("x", 2)), t("T2", v("x", 1))],
    ],
    "made up": [[t("T1", r("x", 1))]],
    "not its own": [
        [t("T1", a("x", 1), r("x"))],
        [t("T1", r("x"), a("x", 1), r("x"))],
        [t("T1", v("x", None), w("x", 1), v("x", None))],
        [t("T1", r("x"), r("x", 1)), t("T2", a("x", 1))],
    ],
    "twice": [[t("T1", a("x", 1)), t("T2", r("x", 1, 1))]],
    "two orders": [[t("T1", a("x", 1)), t("T2", a("x", 2)), t("T3", r("x", 1, 2)), t("T4", r("x", 2))]],
    "half a transaction": [
        [t("T1", a("x", 1), a("x", 2), outcome="unknown"), t("T2", a("x", 3)), t("T3", r("x", 1, 3))],
        [t("T1", a("x", 1), a("x", 2)), t("T2", a("x", 3)), t("T3", r("x", 1, 3, 2))],
    ],
    "lost update": [
        [t("T1", v("x", None), w("x", 1)), t("T2", v("x", None), w("x", 2))],
        [t("T1", r("x"), a("x", 1)), t("T2", r("x"), a("x", 2)), t("T3", r("x", 1, 2))],
    ],
    "dirty write": [
        [
            t("T1", a("x", 1), a("y", 1)),
            t("T2", a("x", 2), a("y", 2)),
            t("T3", r("x", 1, 2)),
            t("T4", r("y", 2, 1)),
        ]
    ],
    "circular flow": [[t("T1", a("x", 1), r("y", 2)), t("T2", a("y", 2), r("x", 1))]],
    "read skew": [
        [t("T1", a("x", 1), a("y", 1)), t("T2", r("x", 1), r("y")), t("T3", r("y", 1))],
        [
            t("T1", a("x", 1), a("y", 1), outcome="unknown"),
            t("T2", r("x", 1), r("y")),
        ],  # half of what is unknown
        [
            t("T1", v("x", None), w("x", 1), v("y", None), w("y", 1)),
            t("T2", v("x", 1), v("y", None)),
        ],
    ],
    "write skew": [
        [
            t("T1", r("x"), r("y"), a("x", 1)),
            t("T2", r("x"), r("y"), a("y", 2)),
            t("T3", r("x", 1), r("y", 2)),
        ],
        [t("T1", v("x", None), v("y", None), w("x", 1)), t("T2", v("y", None), v("x", None), w("y", 2))],
        [  # a phantom: each counted a range and found nothing in it, and added to it
            t("T1", r("g.1"), r("g.2"), a("g.1", 1)),
            t("T2", r("g.1"), r("g.2"), a("g.2", 2)),
            t("T3", r("g.1", 1), r("g.2", 2)),
        ],
    ],
    "long fork": [
        [
            t("T1", a("x", 1)),
            t("T2", a("y", 2)),
            t("T3", r("x", 1), r("y")),
            t("T4", r("x"), r("y", 2)),
        ],
    ],
    "stale read against real time": [
        [t("T1", a("x", 1), at=(0, 1)), t("T2", r("x"), at=(2, 3)), t("T3", r("x", 1), at=(4, 5))],
        [t("T1", a("x", 1), at=(0, 1)), t("T2", r("x"), at=(2, 3))],  # lost, if nobody ever sees it
        [
            t("T1", v("x", None), w("x", 1), at=(0, 1)),
            t("T2", v("x", 1), w("x", 2), at=(2, 3)),
            t("T3", v("x", 1), at=(4, 5)),
        ],
    ],
    "order against real time": [
        [t("T1", a("x", 1), at=(0, 1)), t("T2", a("x", 2), at=(2, 3)), t("T3", r("x", 2, 1), at=(0, 9))],
        [t("T1", r("x", 2), at=(0, 1)), t("T2", a("x", 2), at=(2, 3))],
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    for history in itertools.islice(itertools.permutations(GOOD[name]), 24):
        assert check(history) == []


@pytest.mark.parametrize(("name", "history"), [(name, one) for name, all_ in BAD.items() for one in all_])
def test_an_anomaly_is_found_and_named(name: str, history: list[Transaction]) -> None:
    for shuffled in itertools.islice(itertools.permutations(history), 24):
        assert {anomaly.name for anomaly in check(shuffled)} == {name}


# What a serial executor did, and what became of it

Programs = list[tuple[list[tuple[str, str]], Outcome, bool]]

PROGRAMS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("rrwa"), st.sampled_from("xyz")), min_size=1, max_size=4),
        st.sampled_from(["done", "done", "done", "done", "refused", "unknown"]),
        st.booleans(),  # whether what is unknown was done
    ),
    max_size=25,
)


def executed(programs: Programs, chance: random.Random) -> list[Transaction]:
    """One after the other, each at one instant somewhere between its beginning and its end; then all is read."""
    numbers = itertools.count(1)
    state: dict[str, int | tuple[int, ...] | None] = {}
    history = []
    for at, (steps, outcome, was_done) in enumerate(programs):
        mine, operations = dict(state), list[Operation]()
        for what, name in steps:
            register, line = f"r{name}", f"l{name}"
            if what == "r":
                operations += [Read(register, mine.get(register)), Read(line, mine.get(line, ()))]
            elif what == "w":
                value = next(numbers)
                operations += [Read(register, mine.get(register)), Write(register, value)]
                mine[register] = value
            else:
                element = next(numbers)
                operations.append(Append(line, element))
                mine[line] = (*(mine.get(line) or ()), element)  # type: ignore[misc]
        if outcome == "done" or (outcome == "unknown" and was_done):
            state = mine
        begun, ended = at + 0.5 - chance.random() * 2, at + 0.5 + chance.random() * 2
        history.append(Transaction(f"T{at}", tuple(operations), begun, ended, outcome))
    last = [Read(f"r{name}", state.get(f"r{name}")) for name in "xyz"]
    last += [Read(f"l{name}", state.get(f"l{name}", ())) for name in "xyz"]
    return [*history, Transaction("last", tuple(last), len(programs) + 5, len(programs) + 6)]


@settings(max_examples=300, deadline=None)
@given(PROGRAMS, st.randoms(use_true_random=False))
def test_what_was_done_one_after_the_other_is_accepted(programs: Programs, chance: random.Random) -> None:
    history = executed(programs, chance)
    chance.shuffle(history)
    assert check(history) == []


def shorter(read: Operation) -> Operation | None:
    """Of one that saw two at least: as if it had not seen the last one."""
    if isinstance(read, Read) and isinstance(read.value, tuple) and read.value:
        return Read(read.key, read.value[:-1])
    return None


def swapped(read: Operation) -> Operation | None:
    if isinstance(read, Read) and isinstance(read.value, tuple) and len(read.value) > 1:
        return Read(read.key, (*read.value[:-2], read.value[-1], read.value[-2]))
    return None


def foreign(read: Operation) -> Operation | None:
    if isinstance(read, Read):
        return Read(read.key, (*read.value, 10**6) if isinstance(read.value, tuple) else 10**6)
    return None


@settings(max_examples=300, deadline=None)
@given(PROGRAMS, st.randoms(use_true_random=False), st.sampled_from([shorter, swapped, foreign, "refused"]))
def test_what_was_changed_afterwards_is_refused(
    programs: Programs, chance: random.Random, how: object
) -> None:
    """The last transaction has read all after all others had ended: it is changed, or one whose writes it saw."""
    history = executed(programs, chance)
    *others, last = history
    if how == "refused":
        seen = {value for read in last.operations if isinstance(read, Read) for value in _all(read)}
        places = [at for at, one in enumerate(others) if seen & _written(one)]
        assume(places)
        at = chance.choice(places)
        history[at] = replace(history[at], outcome="refused")
    else:
        assert callable(how)
        places = [at for at, one in enumerate(last.operations) if how(one) is not None]
        assume(places)
        at = chance.choice(places)
        operations = list(last.operations)
        operations[at] = how(operations[at])
        others_know = {value for one in others if one.outcome == "done" for value in _written(one)}
        changed = last.operations[at]
        assume(how is not shorter or (isinstance(changed, Read) and _all(changed)[-1] in others_know))
        history[-1] = replace(last, operations=tuple(operations))
    assert check(history) != [] or (how is swapped and not _is_known(others, changed))


def _all(read: Read) -> tuple[int, ...]:
    return read.value if isinstance(read.value, tuple) else () if read.value is None else (read.value,)


def _written(transaction: Transaction) -> set[int]:
    return {one.element for one in transaction.operations if isinstance(one, Append)} | {
        one.value for one in transaction.operations if isinstance(one, Write)
    }


def _is_known(others: list[Transaction], read: Operation) -> bool:
    """Whether the order of its last two is told by another, by the clock or by one transaction's own."""
    assert isinstance(read, Read)
    *_, one, other = _all(read)
    writers = {value: transaction for transaction in others for value in _written(transaction)}
    if writers[one] is writers[other]:
        return True
    if writers[one].outcome == "done" and writers[one].ended < writers[other].begun:
        return True
    return any(
        other in _all(seen) for writer in others for seen in writer.operations if isinstance(seen, Read)
    )
