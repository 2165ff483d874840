"""Clients that do what they like at the same time, and write down what they saw: histories, for `histories.check`.

A document of the collection `lists` is a list, its key says its group: `2.17`. It is in the index of its group, so
that a range is read by a filter, through the index or not. Lists only grow, each by one element at a time that nobody
else appends. A register is a document too, with one value. Names are had by one client at a time: a unique index
says so.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.versionbase.histories import Append, Operation, Outcome, Read, Transaction, Write
from tests.versionbase.wire import BROKEN, Refused, Wire, connected

GROUPS, KEYS, REGISTERS, NAMES = 3, 8, 4, 2
FILTERS = ("doc.group == g", "doc.group >= g && doc.group < g + 1", "doc.group * 1 == g", "key.startsWith(p)")

Lists = dict[str, tuple[int, ...]]


class Workload:
    """`address` may change, as servers come and go. `chance` chooses what is done, not what meets what."""

    def __init__(self, address: Callable[[], str], version: str, key: str, chance: random.Random) -> None:
        self._address, self._version, self._key = address, version, key
        self._chance = chance
        self._elements = itertools.count(1)
        self._numbers = itertools.count(1)
        self.history: list[Transaction] = []
        self.counts: Counter[str] = Counter()
        self.holders: dict[str, str] = {}
        self.sequence = 0  # the highest that was acknowledged
        self.wrong: list[str] = []
        self.until: Callable[[], bool] = lambda: False
        self.watched: list[dict[str, Any]] = []

    async def prepare(self) -> None:
        async with connected(self._address(), self._version, self._key) as wire:
            await wire.ask("create_index", collection="lists", path="group")
            await wire.ask("create_index", collection="names", path="name", unique=True)

    async def run(self, clients: int, until: Callable[[], bool]) -> None:
        self.until = until
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(f"client {number}"))

    async def _client(self, name: str) -> None:
        """Connects anew when its server is gone."""
        doings: list[tuple[int, Callable[[Wire, str], Awaitable[None]]]] = [
            (6, self._transaction),
            (2, self._reading_transaction),
            (2, self._one_get),
            (2, self._one_find),
            (2, self._one_insert),
            (1, self._snapshot),
            (2, self._hold_a_name),
        ]
        weights, works = [weight for weight, _ in doings], [work for _, work in doings]
        while not self.until():
            try:
                async with connected(self._address(), self._version, self._key) as wire:
                    await self._let_go(wire, name)
                    while not self.until():
                        await self._chance.choices(works, weights)[0](wire, name)
            except BROKEN:
                self.counts["connections broken"] += 1
                await asyncio.sleep(0.01)

    # What is done, and written down

    async def _transaction(self, wire: Wire, name: str) -> None:
        note = _Note(self)
        begun = await wire.ask("begin")
        if begun["sequence"] < note.sequence:
            self.wrong.append(f"began at {begun['sequence']}, when {note.sequence} had been acknowledged")
        within = begun["in"]
        asked = False
        try:
            for _ in range(self._chance.randint(1, 4)):
                await self._step(wire, within, note)
            asked = True
            done = await wire.ask("commit", **{"in": within})
            self._acknowledged(done["sequence"])
            note.end("done")
        except Refused as refused:
            if refused.kind not in ("conflict", "exists"):
                raise
            self.counts[refused.kind] += 1
            note.end("refused")
            if not asked:
                await wire.ask("abort", **{"in": within})
        except BROKEN:
            note.end("unknown" if asked else "refused")
            raise

    async def _step(self, wire: Wire, within: int, note: _Note) -> None:
        what = self._chance.choice(("get", "append", "append", "range", "register", "count"))
        if what == "get":
            note.lists(await self._get(wire, [self._key_of_list()], within))
        elif what == "append":
            key = self._key_of_list()
            was = await self._get(wire, [key], within)
            note.lists(was)
            element = next(self._elements)
            note.operations.append(Append(key, element))
            if was[key]:
                items = [*was[key], element]
                await wire.ask("update", collection="lists", key=key, set={"items": items}, **{"in": within})
            else:
                await wire.ask(
                    "insert",
                    collection="lists",
                    keys=[key],
                    documents=[_document(key, element)],
                    **{"in": within},
                )
        elif what == "range":
            note.lists(await self._find(wire, self._chance.randrange(GROUPS), within))
        elif what == "count":
            group = self._chance.randrange(GROUPS)
            number = await wire.ask(
                "count", collection="lists", filter="doc.group == g", params={"g": group}, **{"in": within}
            )
            found = await self._find(wire, group, within)
            note.lists(found)
            if number != sum(map(bool, found.values())):
                self.wrong.append(f"counted {number} in {found}")
        else:
            await self._set_register(wire, within, note)

    async def _set_register(self, wire: Wire, within: int, note: _Note) -> None:
        key = f"r{self._chance.randrange(REGISTERS)}"
        (was,) = await wire.ask("get", collection="registers", keys=[key], **{"in": within})
        note.operations.append(Read(key, was["value"] if was else None))
        if self._chance.random() < 0.6:
            value = next(self._elements)
            note.operations.append(Write(key, value))
            document = {"value": value, "padding": "x" * self._chance.choice((0, 0, 5000))}
            await wire.ask(
                "replace", collection="registers", key=key, document=document, create=True, **{"in": within}
            )

    async def _reading_transaction(self, wire: Wire, name: str) -> None:
        note = _Note(self)
        within = (await wire.ask("begin", write=False))["in"]
        note.lists(await self._find(wire, self._chance.randrange(GROUPS), within))
        note.lists(await self._find(wire, self._chance.randrange(GROUPS), within))
        note.lists(await self._get(wire, [self._key_of_list() for _ in range(3)], within))
        await wire.ask(self._chance.choice(("commit", "abort")), **{"in": within})
        note.end("done")

    async def _one_get(self, wire: Wire, name: str) -> None:
        note = _Note(self)
        note.lists(await self._get(wire, [self._key_of_list() for _ in range(4)]))
        note.end("done")

    async def _one_find(self, wire: Wire, name: str) -> None:
        note = _Note(self)
        note.lists(await self._find(wire, self._chance.randrange(GROUPS)))
        note.end("done")

    async def _one_insert(self, wire: Wire, name: str) -> None:
        """Several at once, all or none."""
        note = _Note(self)
        new = {self._key_of_list(): next(self._elements) for _ in range(self._chance.randint(1, 3))}
        for key, element in new.items():
            note.operations += [Read(key, ()), Append(key, element)]
        documents = [_document(key, element) for key, element in new.items()]
        try:
            await wire.ask("insert", collection="lists", keys=[*new], documents=documents)
            note.end("done")
        except Refused as refused:
            if refused.kind != "exists":
                raise
            self.counts["exists"] += 1
            note.operations = [one for one in note.operations if not isinstance(one, Read)]
            note.end("refused")
        except BROKEN:
            note.operations = [one for one in note.operations if not isinstance(one, Read)]
            note.end("unknown")
            raise

    async def _snapshot(self, wire: Wire, name: str) -> None:
        """What it shows is what was, once, while it was taken; and whenever it is read."""
        if self._chance.random() < 0.7:
            return
        note = _Note(self)
        snapshot = await wire.ask("snapshot")
        ended = time.monotonic()
        first = await self.all_lists(wire, at=snapshot["id"])
        note.lists(first)
        note.end("done", ended)
        if await self.all_lists(wire, at=snapshot["id"]) != first:
            self.wrong.append(f"snapshot {snapshot} has changed")
        self.counts["snapshots"] += 1

    async def _hold_a_name(self, wire: Wire, name: str) -> None:
        """Between the answer to its insertion and the request to delete it, it is its client's alone."""
        wanted = f"name {self._chance.randrange(NAMES)}"
        try:
            (key,) = await wire.ask("insert", collection="names", documents=[{"name": wanted, "by": name}])
        except Refused as refused:
            if refused.kind != "exists":
                raise
            self.counts["names that were had"] += 1
            return
        except BROKEN:
            self.holders[wanted] = "?"  # perhaps for ever
            raise
        if (holder := self.holders.get(wanted)) not in (None, "?"):
            self.wrong.append(f"{wanted} is had by {holder} and {name}")
        self.holders[wanted] = name
        for _ in range(self._chance.randrange(3)):
            await self._one_get(wire, name)
        self.holders.pop(wanted, None)
        await wire.ask("delete", collection="names", keys=[key])
        self.counts["names"] += 1

    async def _let_go(self, wire: Wire, name: str) -> None:
        """Of names that it had, or may have had, when its connection broke."""
        self.holders = {held: holder for held, holder in self.holders.items() if holder != name}
        mine = await wire.ask("find", collection="names", filter="doc.by == name", params={"name": name})
        if mine:
            await wire.ask("delete", collection="names", keys=[key for key, _ in mine])

    # Requests

    async def _get(self, wire: Wire, keys: list[str], within: int | None = None) -> Lists:
        more = {} if within is None else {"in": within}
        documents = await wire.ask("get", collection="lists", keys=keys, **more)
        return {key: _items(document) for key, document in zip(keys, documents, strict=True)}

    async def _find(self, wire: Wire, group: int, within: int | None = None) -> Lists:
        """All of a group, with those that are not there."""
        more: dict[str, Any] = {} if within is None else {"in": within}
        filter_, params = self._chance.choice(FILTERS), {"g": group, "p": f"{group}."}
        order = self._chance.choice(({}, {"order": "key desc"}, {"order": "group"}))
        found = await wire.ask("find", collection="lists", filter=filter_, params=params, **order, **more)
        return dict.fromkeys(all_keys(group), ()) | {key: _items(document) for key, document in found}

    async def all_lists(self, wire: Wire, **more: Any) -> Lists:
        found = await wire.ask("find", collection="lists", **more)
        everywhere = [key for group in range(GROUPS) for key in all_keys(group)]
        return dict.fromkeys(everywhere, ()) | {key: _items(document) for key, document in found}

    async def note_all(self, wire: Wire, begun: float, ended: float) -> Lists:
        """What there is, as a transaction that took place between two moments."""
        note = _Note(self)
        note.begun = begun
        found = await self.all_lists(wire)
        note.lists(found)
        note.end("done", ended)
        return found

    async def read_all(self) -> None:
        """What there is in the end, as one more transaction: what was lost is missed then."""
        async with connected(self._address(), self._version, self._key) as wire:
            note = _Note(self)
            within = (await wire.ask("begin", write=False))["in"]
            note.lists(await self.all_lists(wire, **{"in": within}))
            for key in (f"r{number}" for number in range(REGISTERS)):
                (was,) = await wire.ask("get", collection="registers", keys=[key], **{"in": within})
                note.operations.append(Read(key, was["value"] if was else None))
            note.end("done")
            names = [document["name"] for _, document in await wire.ask("find", collection="names")]
            if len(names) != len(set(names)):
                self.wrong.append(f"names are had twice: {names}")

    def _key_of_list(self) -> str:
        return f"{self._chance.randrange(GROUPS)}.{self._chance.randrange(KEYS)}"

    def _acknowledged(self, sequence: int) -> None:
        self.sequence = max(self.sequence, sequence)

    def ended(self, transaction: Transaction) -> None:
        self.history.append(transaction)
        self.counts[transaction.outcome] += 1

    def name(self) -> str:
        return f"T{next(self._numbers)}"


class _Note:
    """What one transaction saw and did."""

    def __init__(self, of: Workload) -> None:
        self._of = of
        self.name = of.name()
        self.begun = time.monotonic()
        self.sequence = of.sequence
        self.operations: list[Operation] = []

    def lists(self, found: Lists) -> None:
        self.operations += [Read(key, items) for key, items in found.items()]

    def end(self, outcome: Outcome, ended: float | None = None) -> None:
        """One that was refused has read what was there at one moment, even so: its reads are a transaction, too."""
        at = time.monotonic() if ended is None else ended
        self._of.ended(Transaction(self.name, tuple(self.operations), self.begun, at, outcome))
        if outcome != "refused":
            return
        mine: set[str] = set()
        reads = []
        for operation in self.operations:
            if not isinstance(operation, Read):
                mine.add(operation.key)
            elif operation.key not in mine:
                reads.append(operation)
        self._of.ended(Transaction(f"{self.name}'s reads", tuple(reads), self.begun, at))


def all_keys(group: int) -> list[str]:
    return [f"{group}.{number}" for number in range(KEYS)]


def _document(key: str, element: int) -> dict[str, Any]:
    return {"group": int(key.partition(".")[0]), "items": [element]}


def _items(document: dict[str, Any] | None) -> tuple[int, ...]:
    return tuple(document["items"]) if document else ()
