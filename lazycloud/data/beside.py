"""What versions have beside their folders: databases on servers of their own, each kind behind a Provider.

Which of them a version has is written down in a file of ours, where no worker writes: a version that was forked
with a database is never given another, or none, because a setting has changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lazycloud.data import durable
from lazycloud.data.names import PASSING, PRODUCTION
from lazycloud.data.provider import Provider
from lazycloud.errors import LazycloudError, StepFailed

log = logging.getLogger(__name__)

MISSING = {
    "postgres": (
        'The commit asks for Postgres ([data] database = "postgres"), and this server is set to use none.',
        "Give it the URL of one, as LAZYCLOUD_POSTGRES_URL or `postgres_url` in config.toml.",
    ),
    "redis": (
        "The commit asks for Redis ([data] redis = true), and this server has none.",
        "`lazycloud doctor` tells what it lacks.",
    ),
    "versionbase": (
        "The commit asks for a versionbase ([data] versionbase = true), and this server has none.",
        "",
    ),
}


class Beside:
    """`place`: the file in which is kept what each version and snapshot has, and which swap does not hold yet."""

    def __init__(self, place: Path, providers: Mapping[str, Provider]) -> None:
        self._place = place
        self._providers = providers
        self._has: dict[str, list[str]] = {}  # names of providers, by version, or version@snapshot
        self._going: list[str] = []  # versions and snapshots to be dropped, whose server was away
        self._swaps: dict[str, dict[str, Any]] = {}  # version -> with which other it changes places for now
        self._loaded = False
        self._saving = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Beside {self._place}: {', '.join(self._providers) or 'nothing'}>"

    async def open(self) -> None:
        for provider in self._providers.values():
            await provider.open()

    async def close(self) -> None:
        await asyncio.gather(*(provider.close() for provider in self._providers.values()))

    def of(self, version: str, snapshot: str | None = None) -> list[str]:
        """The names of what it has."""
        self._load()
        return list(self._has.get(_key(version, snapshot), ()))

    def has(self, name: str, version: str, snapshot: str | None = None) -> bool:
        return name in self.of(version, snapshot)

    def places(self, wanted: Sequence[str]) -> tuple[Path, ...]:
        """Folders that a worker must see to find it."""
        known = [self._providers[name] for name in wanted if name in self._providers]
        return tuple(place for provider in known for place in provider.places())

    def reached(self, version: str, wanted: Sequence[str]) -> tuple[int, ...]:
        """Ports of this machine to which its workers must get."""
        known = [self._providers[name] for name in wanted if name in self._providers]
        return tuple(port for provider in known for port in provider.reached(version))

    async def environment(self, version: str, wanted: Sequence[str]) -> dict[str, str]:
        """What a worker finds it by. Raises StepFailed for what this server, or the version, has not."""
        found: dict[str, str] = {}
        for name in wanted:
            provider = self._provider(name)
            if name not in self.of(version):
                raise StepFailed(f"{version[:40]} has no {name} of its own.", "Deploy it again.")
            found |= await provider.environment(version)
        return found

    def demand(self, wanted: Sequence[str]) -> None:
        """Raises StepFailed for what this server does not have."""
        for name in wanted:
            self._provider(name)

    async def make(
        self, version: str, source: str | None, at: str | None, wanted: Sequence[str] | None
    ) -> list[str]:
        """For a version that is not there yet: from what the source has; empty where that has none of it.

        `wanted` None: as the source. One that may come to be production has what production had, in any case.
        What is to be told of it.
        """
        had = self.of(source, at) if source else []
        names = had if wanted is None else list(wanted)
        if version.startswith(PASSING):
            names = list(dict.fromkeys([*names, *had]))
        self.demand(names)
        if _key(version) in self._going or (version != PRODUCTION and self.of(version)):
            await self._drop(_key(version))  # of an earlier one, or of a fork that was cut off
        if not names:
            return []
        self._has[_key(version)] = list(names)
        await self._save()
        return [
            await self._fork(name, version, source if name in had else None, at if name in had else None)
            for name in names
        ]

    async def complete(self, version: str, wanted: Sequence[str]) -> list[str]:
        """For a version that is there: what it lacks of it is made, empty. What is to be told of that."""
        self.demand(wanted)
        notes = []
        for name in wanted:
            if name not in self.of(version):
                note = await self._fork(name, version, None, None)
                notes.append(f"{note}, as it had none; what is in its folder stays")
                self._has.setdefault(_key(version), []).append(name)
                await self._save()
            elif not await self._providers[name].exists(version):
                raise StepFailed(
                    f"The {name} of {version[:40]} is gone from its server: it is not replaced by an empty one.",
                    "Put it back from a backup, or drop the version.",
                )
        return notes

    async def _fork(self, name: str, version: str, source: str | None, at: str | None) -> str:
        note = await self._providers[name].fork(version, source, at)
        return f"{name.capitalize()} {note or 'as it was'}" if source else note

    async def snapshot(self, version: str, snapshot: str) -> list[str]:
        if not (names := self.of(version)):
            return []
        self.demand(names)
        self._has[_key(version, snapshot)] = names
        await self._save()
        notes = [await self._providers[name].snapshot(version, snapshot) for name in names]
        return [f"{name.capitalize()} {note}" for name, note in zip(names, notes, strict=True) if note]

    async def unfold(
        self, version: str, snapshot: str | None, folder: Path, wanted: Sequence[str] | None = None
    ) -> None:
        """Into files of their names there; None wants all that it has."""
        for name in self.of(version, snapshot):
            if wanted is None or name in wanted:
                await self._provider(name).unfold(version, snapshot, folder / f"{name}.dump")

    async def outline(self, version: str, snapshot: str | None, folder: Path) -> dict[tuple[str, str], int]:
        """The schemas of what it has, as `unfold` would write them; numbers of rows, by what has them and table."""
        found: dict[tuple[str, str], int] = {}
        for name in self.of(version, snapshot):
            counted = await self._provider(name).outline(version, snapshot, folder / f"{name}.dump")
            found |= {(name, table): count for table, count in counted.items()}
        return found

    async def take(self, version: str, folder: Path) -> None:
        """Give a version, which nobody uses now, what `unfold` wrote there, and remove those files."""
        for name in self._providers:
            place = folder / f"{name}.dump"
            if place.is_file():
                if name not in self.of(version):
                    await self._provider(name).fork(version, None)
                    self._has.setdefault(_key(version), []).append(name)
                    await self._save()
                await self._provider(name).load(version, place)
                await asyncio.to_thread(place.unlink)

    async def swap(self, version: str, other: str) -> None:
        """The version has what the other had; of what that had none of, it keeps its own.

        Until `swapped` it can be taken back, also after a crash.
        """
        names = sorted(self.of(other))
        self.demand(names)
        if not names:
            return
        if version in self._swaps:
            await self._hold(version)
        self._swaps[version] = {"other": other, "names": names, "exchanged": False, "holds": False}
        await self._save()
        try:
            for name in names:
                await self._providers[name].swap(version, other)
            await self._exchange(version)
        except BaseException:
            await asyncio.shield(self.undo_swap(version))
            raise

    @property
    def swaps(self) -> dict[str, str]:
        """Those that do not hold yet: version -> the other one."""
        self._load()
        return {version: swap["other"] for version, swap in self._swaps.items() if not swap["holds"]}

    def is_settled(self, version: str) -> bool:
        """Whether there is a swap of which not all have been told that it holds."""
        self._load()
        return version in self._swaps and bool(self._swaps[version]["holds"])

    async def settle(self, version: str) -> None:
        """It holds, from now on, whatever becomes of the rest."""
        self._load()
        if version in self._swaps and not self._swaps[version]["holds"]:
            self._swaps[version]["holds"] = True
            await self._save()

    async def swapped(self, version: str) -> None:
        """It holds: what a server that is away does not know yet it is told later."""
        await self.settle(version)
        if version in self._swaps:
            try:
                await self._hold(version)
            except LazycloudError as problem:
                log.warning("That the data of %s hold is told later: %s", version, problem)

    async def _hold(self, version: str) -> None:
        for name in self._swaps[version]["names"]:
            await self._provider(name).swapped(version)
        del self._swaps[version]
        await self._save()

    async def undo_swap(self, version: str) -> bool:
        """Whether it had happened; nothing happens if there is none."""
        self._load()
        swap = self._swaps.get(version)
        if not swap or swap["holds"]:
            return False
        for name in swap["names"]:
            await self._provider(name).undo_swap(version)
        happened = bool(swap["exchanged"])
        if happened:
            await self._exchange(version)
        del self._swaps[version]
        await self._save()
        return happened

    async def _exchange(self, version: str) -> None:
        swap, has = self._swaps[version], self._has
        other, moved = swap["other"], swap["names"]
        one, two = has.get(version, []), has.get(other, [])
        has[version] = [name for name in one if name not in moved] + [name for name in two if name in moved]
        has[other] = [name for name in two if name not in moved] + [name for name in one if name in moved]
        swap["exchanged"] = not swap["exchanged"]
        await self._save()

    async def drop(self, version: str) -> None:
        """With its snapshots. What a server that is away still has of it goes another time."""
        self._load()
        mine = [key for key in self._has if key == version or key.startswith(f"{version}@")]
        await self._let_go(
            [*(key for key in mine if key != version), *(key for key in mine if key == version)]
        )

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        self._load()
        await self._let_go([_key(version, snapshot)] if _key(version, snapshot) in self._has else [])

    async def _let_go(self, keys: list[str]) -> None:
        if not keys:
            return
        self._going += [key for key in keys if key not in self._going]
        await self._save()
        for key in list(self._going):
            try:
                await self._drop(key)
            except LazycloudError as problem:
                log.warning("What %s has beside its folder is dropped later: %s", key[:80], problem)

    async def _drop(self, key: str) -> None:
        version, _, snapshot = key.partition("@")
        for name in self.of(version, snapshot or None):
            provider = self._provider(name)
            await (provider.drop_snapshot(version, snapshot) if snapshot else provider.drop(version))
        self._has.pop(key, None)
        self._going = [each for each in self._going if each != key]
        await self._save()

    async def taken(self, version: str) -> int:
        """Bytes that come free when it is dropped: of it, and of its snapshots."""
        self._load()
        snapshots = [key.partition("@")[2] for key in self._has if key.startswith(f"{version}@")]
        return sum([await self.size(version, snapshot) for snapshot in (None, *snapshots)])

    async def size(self, version: str, snapshot: str | None = None) -> int:
        """Bytes; of a server that is away, none."""
        total = 0
        for name in self.of(version, snapshot):
            try:
                total += await self._provider(name).size(version, snapshot)
            except LazycloudError as problem:
                log.debug("The size of the %s of %s is not known: %s", name, version, problem)
        return total

    def _provider(self, name: str) -> Provider:
        if name not in self._providers:
            raise StepFailed(*MISSING.get(name, (f"This server has no {name}.", "")))
        return self._providers[name]

    def _load(self) -> None:
        if self._loaded:
            return
        try:
            kept = json.loads(self._place.read_text())
        except FileNotFoundError:
            kept = {}
        self._has, self._going = kept.get("has", {}), kept.get("going", [])
        self._swaps = kept.get("swaps", {})
        self._loaded = True

    async def _save(self) -> None:
        async with self._saving:
            text = json.dumps({"has": self._has, "going": self._going, "swaps": self._swaps})
            await asyncio.to_thread(self._write, text)

    def _write(self, text: str) -> None:
        self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        durable.write(self._place, text)


def _key(version: str, snapshot: str | None = None) -> str:
    return f"{version}@{snapshot}" if snapshot else version
