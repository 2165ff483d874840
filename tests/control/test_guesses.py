from __future__ import annotations

import pytest

from lazycloud.control.guesses import ACCOUNT_LONGEST, ADDRESS_LONGEST, FREE, KNOWN, Guesses, TooManyAttempts
from lazycloud.control.seldom import Seldom


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait_of(guesses: Guesses, *keys: str) -> int:
    with pytest.raises(TooManyAttempts) as refused:
        guesses.begin(*keys)
    return refused.value.retry_after


def test_each_wrong_guess_after_some_makes_the_next_wait_twice_as_long() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(FREE):
        guesses.begin("1.2.3.4")
    waits = []
    for _ in range(14):
        guesses.begin("1.2.3.4")
        waits.append(wait_of(guesses, "1.2.3.4"))
        clock.now += waits[-1]
    assert waits[:4] == [2, 3, 5, 9]
    assert waits[-1] == ADDRESS_LONGEST + 1
    guesses.begin("5.6.7.8")


def test_an_account_is_guessed_at_slowly_from_many_addresses_and_its_owner_waits_a_minute_at_most() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for number in range(FREE + 1):
        guesses.begin(f"10.0.0.{number}", "ada")
    assert wait_of(guesses, "10.9.9.9", "ada") == 2
    guesses.begin("10.9.9.9", "bob")
    for number in range(20):
        clock.now += ACCOUNT_LONGEST + 1
        guesses.begin(f"10.1.0.{number}", "ada")
    assert wait_of(guesses, "10.9.9.9", "ada") <= ACCOUNT_LONGEST + 1


def test_a_right_one_is_forgiven_but_opens_no_way_to_guess_at_others() -> None:
    guesses = Guesses(Clock())
    for account in ("ada", "bob", "cat", "dan", "eve"):
        guesses.begin("a", "mallory")
        guesses.succeeded("a", "mallory")
        guesses.begin("a", account)
    guesses.begin("a", "mallory")
    assert wait_of(guesses, "a", "fay")
    guesses.begin("b", "mallory")


def test_guesses_at_the_same_time_count_before_it_is_known_that_they_are_wrong() -> None:
    guesses = Guesses(Clock())
    for _ in range(FREE + 1):
        guesses.begin("a", "ada")
    assert wait_of(guesses, "a", "ada")


def test_what_is_remembered_is_bounded_and_forgotten_after_an_hour() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for number in range(KNOWN + 500):
        guesses.begin(f"address {number}")
    assert len(guesses._tries) == KNOWN
    for _ in range(FREE + 1):
        guesses.begin("late")
    clock.now += 3601
    guesses.begin("late")
    guesses.begin("late")


def test_many_things_are_told_as_few_with_their_number() -> None:
    clock = Clock()
    seldom = Seldom(2, 60.0, clock)
    assert [seldom.take() for _ in range(5)] == [1, 1, 0, 0, 0]
    clock.now += 61
    assert [seldom.take() for _ in range(3)] == [4, 1, 0]
