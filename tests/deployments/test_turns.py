"""So many at a time, first come first served."""

import asyncio

from lazycloud.deployments.turns import Turns


class Worker:
    """Takes a turn and keeps it until told."""

    def __init__(self, turns: Turns) -> None:
        self.places: list[int] = []
        self.has_turn = asyncio.Event()
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._work(turns))

    async def _work(self, turns: Turns) -> None:
        async with turns.take(self.places.append):
            self.has_turn.set()
            await self.done.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_are_taken_in_order_and_each_hears_of_its_place() -> None:
    turns = Turns(2)
    workers = [Worker(turns) for _ in range(5)]
    await settle()
    assert [worker.has_turn.is_set() for worker in workers] == [True, True, False, False, False]
    workers[1].done.set()
    await settle()
    assert workers[2].has_turn.is_set()
    assert [worker.places for worker in workers[2:]] == [[0], [1, 0], [2, 1]]
    for worker in workers:
        worker.done.set()
    await asyncio.gather(*(worker.task for worker in workers))


async def test_one_who_leaves_the_queue_makes_room_for_those_behind() -> None:
    turns = Turns(1)
    first, second, third = (Worker(turns) for _ in range(3))
    await settle()
    second.task.cancel()
    await settle()
    assert third.places == [1, 0]
    first.done.set()
    await asyncio.wait_for(third.has_turn.wait(), 5)
    third.done.set()
    await asyncio.gather(first.task, third.task)


async def test_a_turn_is_not_lost_on_one_who_is_cancelled_as_it_is_called() -> None:
    turns = Turns(1)
    first, second, third = (Worker(turns) for _ in range(3))
    await settle()
    first.done.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.task.cancel()
    await asyncio.wait_for(third.has_turn.wait(), 5)
    third.done.set()
    await asyncio.gather(third.task)
    assert turns.waiting == 0


async def test_a_turn_given_back_early_is_given_back_once() -> None:
    turns = Turns(1)
    async with turns.take(lambda ahead: None) as turn:
        turn.release()
        async with turns.take(lambda ahead: None):
            turn.release()
            third = Worker(turns)
            await settle()
            assert not third.has_turn.is_set()
    await asyncio.wait_for(third.has_turn.wait(), 5)
    third.done.set()
    await third.task
