"""So many at a time: the most urgent first, among equals first come first served."""

import asyncio

from lazycloud.deployments.turns import Rank, Turn, Turns
from tests.waiting import PATIENCE

PRODUCTION, WAITED_FOR, WARMER = Rank


class Queued:
    """A turn that was asked for, and the places that it was told of."""

    def __init__(self, turns: Turns, rank: Rank = WAITED_FOR) -> None:
        self.places: list[int] = []
        self.turn: Turn = turns.join(rank, self.places.append)
        self._task = asyncio.create_task(self.turn.come())

    async def works(self) -> bool:
        for _ in range(20):  # turns of the loop: nothing here waits for anything else
            await asyncio.sleep(0)
        return self._task.done()


async def working(*queued: Queued) -> list[bool]:
    return [await one.works() for one in queued]


async def test_turns_are_taken_in_order_and_each_hears_of_its_place() -> None:
    turns = Turns(2)
    queued = [Queued(turns) for _ in range(5)]
    assert await working(*queued) == [True, True, False, False, False]
    queued[1].turn.release()
    assert await working(*queued[2:]) == [True, False, False]
    assert [one.places[0] for one in queued[2:]] == [0, 1, 2]
    assert [one.places[-1] for one in queued[2:]] == [0, 0, 1]


async def test_one_who_leaves_the_queue_makes_room_for_those_behind() -> None:
    turns = Turns(1)
    first, second, third = (Queued(turns) for _ in range(3))
    second.turn.release()
    assert third.places[-1] == 0
    first.turn.release()
    assert await third.works()


async def test_what_somebody_waits_for_comes_before_warmers_and_production_before_all() -> None:
    turns = Turns(1)
    busy, more = Queued(turns, PRODUCTION), Queued(turns, PRODUCTION)
    warmer, person, production = (Queued(turns, rank) for rank in (WARMER, WAITED_FOR, PRODUCTION))
    assert [one.places[-1] for one in (production, person, warmer)] == [0, 1, 2]
    for done, next_one in ((busy, production), (more, None), (production, person), (person, warmer)):
        done.turn.release()
        assert next_one is None or await next_one.works()


async def test_a_warmer_that_somebody_opens_moves_up_at_once() -> None:
    turns = Turns(1)
    busy = Queued(turns)
    first, second, third = (Queued(turns, WARMER) for _ in range(3))
    third.turn.hurry(WAITED_FOR)
    third.turn.hurry(WARMER)
    assert [one.places[-1] for one in (third, first, second)] == [0, 1, 2]
    busy.turn.release()
    assert await working(third, first, second) == [True, False, False]


async def test_warmers_leave_a_place_for_people_and_people_one_for_production() -> None:
    turns = Turns(2)
    warmers = [Queued(turns, WARMER) for _ in range(2)]
    assert await working(*warmers) == [True, False]
    people = [Queued(turns) for _ in range(2)]
    assert await working(*people) == [True, False]
    assert await Queued(turns, PRODUCTION).works()
    assert await working(warmers[1], people[1]) == [False, False]


async def test_a_single_place_is_for_warmers_too() -> None:
    turns = Turns(1)
    warmer, person = Queued(turns, WARMER), Queued(turns)
    assert await working(warmer, person) == [True, False]


async def test_a_turn_given_back_twice_is_given_back_once() -> None:
    turns = Turns(1)
    first, second, third = (Queued(turns) for _ in range(3))
    first.turn.release()
    first.turn.release()
    assert await working(second, third) == [True, False]
    second.turn.release()
    third.turn.release()
    assert turns.waiting == 0


async def test_one_that_comes_at_once_takes_nobodys_place() -> None:
    turns = Turns(1)
    busy = Queued(turns)
    told: list[int] = []
    at_once = turns.join(PRODUCTION, told.append, at_once=True)
    await asyncio.wait_for(at_once.come(), PATIENCE)
    assert told == [] and turns.waiting == 0
    waiting = Queued(turns)
    at_once.release()
    assert await working(waiting) == [False]
    busy.turn.release()
    assert await working(waiting) == [True]
