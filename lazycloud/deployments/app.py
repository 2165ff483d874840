"""A repository served under a domain, with its builds and its data."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lazycloud.build.commit import Commit
from lazycloud.build.plan import Plan
from lazycloud.build.repository import Repository
from lazycloud.build.stages import Stages
from lazycloud.data.serving import Servers
from lazycloud.data.versionbase import Versionbase
from lazycloud.data.versions import Versions
from lazycloud.errors import BadInput, LazycloudError, NotFound
from lazycloud.hosts import flat_limit

if TYPE_CHECKING:  # it takes a tenth of a second, and few servers have one
    from lazycloud.data.postgres.provider import Postgres

COMMITS_KEPT = 2000  # a commit never changes; this many are some 1 MB


@dataclass(eq=False)
class App:
    """`production` is the full id of its commit, "" while there is none; `follow` a branch, or ""."""

    name: str
    source: str
    domain: str
    follow: str
    repository: Repository
    stages: Stages
    versions: Versions
    servers: tuple[Servers, ...]
    versionbase: Versionbase
    production: str = ""
    postgres: Postgres | None = None  # if this server has one
    _commits: OrderedDict[str, Commit] = field(default_factory=OrderedDict)

    async def commit(self, commit_id: str) -> Commit:
        """By its full id. Raises NotFound."""
        if commit_id not in self._commits:
            self._commits[commit_id] = await self.repository.commit(commit_id)
            if len(self._commits) > COMMITS_KEPT:
                self._commits.popitem(last=False)
        return self._commits[commit_id]

    async def named(self, commit_id: str) -> Commit:
        """The same; one that the repository has lost meanwhile, or cannot tell now, is named all the same."""
        try:
            return await self.commit(commit_id)
        except LazycloudError:
            return Commit(commit_id, "", (), "", 0.0, "(no longer in the repository)")

    async def labelled(self, label: str) -> Commit:
        """What a host's label names. Raises NotFound, Ambiguous."""
        if label in self._commits:
            return self._commits[label]
        return await self.repository.resolve(label, flat_limit(self.name))

    async def wanted(self, ref: str) -> Commit:
        """A revision as git takes it, or a host's label. Raises NotFound, Ambiguous, BadInput."""
        if not ref:
            raise BadInput("Which commit? `ref` is missing.", "Give a commit id, branch or tag.")
        try:
            return await self.repository.revision(ref)
        except NotFound:
            return await self.labelled(ref.lower())

    async def plan(self, commit: Commit) -> Plan:
        """What would be done to run it; reads its files, writes none. Raises BadInput, StepFailed."""
        return await self.stages.plan(commit)
