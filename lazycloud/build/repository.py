"""A git repository: its refs, its commits, and what a label or a word names among them.

A path is read in place and never cloned; a URL is mirrored in a folder of ours. No work tree is touched.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from lazycloud.build.commit import FULL_ID, SHORT, Commit, Ref, parse_commit
from lazycloud.build.disk import disk_watched
from lazycloud.build.git import REMOTE_TIMEOUT, Git, GitFailed, git_environment, run_git
from lazycloud.build.lfs import LargeFiles
from lazycloud.build.listing import EXECUTABLE, FILE, Listing
from lazycloud.build.objects import Objects, in_thread
from lazycloud.build.parts import Listings, Parts
from lazycloud.build.search import Search
from lazycloud.build.source import WRITE_TIMEOUT, Writing, Written
from lazycloud.build.submodules import Origin, Submodules, is_scp_like
from lazycloud.build.tree import Tree
from lazycloud.errors import Ambiguous, BadInput, NotFound, StepFailed
from lazycloud.hosts import slug
from lazycloud.processes import Output

__all__ = ["Commit", "Ref", "Repository"]

T = TypeVar("T")
LABEL = 63  # letters of a host label
LOOK_TIMEOUT = 60.0
READ_SIZE = 8 << 20  # bytes of a file that is read whole; lockfiles of large apps are some MiB
URL_SCHEMES = ("https", "http", "ssh", "git", "file")
FETCHED = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")  # not pull requests: strangers' code
PULLS = ("refs/pull/{}/head", "refs/merge-requests/{}/head")  # of GitHub, Gitea and Forgejo; of GitLab
ALLOWED = "refs/lazycloud/pulls/"  # and a number, and the commit that somebody allowed
_PREFIX = re.compile(r"[0-9a-f]{7,64}")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KINDS = {"heads": "branch", "tags": "tag", "remotes": "remote branch"}


@dataclass(frozen=True)
class Pull:
    """A pull request of the remote, and the full id of its head."""

    number: int
    commit: str


class Repository:
    """`source` is a local path (work tree or bare) or a clone URL; `folder` is ours, for mirror and submodules."""

    def __init__(
        self,
        source: str,
        folder: Path,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.is_remote = _is_url(source)
        self._folder = folder
        self._environment = git_environment(environ)
        self._git = Git(folder / "mirror.git", self._environment)
        self._common = self._git
        self._checkout: Path | None = None
        self._remote: tuple[Hashable, str | None] | None = None
        self._search = Search(self.fetch, clock)
        self._listings = Listings()
        self._parts = Parts(self._listings, Submodules(folder / "modules", self._environment))
        self._large_files = LargeFiles(folder / "lfs", self._environment)

    def __repr__(self) -> str:
        return f"Repository({shown_url(self.source)!r})"

    async def open(self) -> None:
        """Find the git folder, or make the mirror. Raises BadInput for what is no repository, StepFailed."""
        if not self.is_remote:
            await self._open_path(Path(self.source).expanduser().absolute())
        elif not self._git.folder.is_dir():
            await self._clone()

    async def close(self) -> None:
        """End a fetch that is under way. Idempotent."""
        await self._search.close()

    def is_at(self, git_folder: Path) -> bool:
        """Whether that (real path) is the folder that all of its work trees share."""
        return not self.is_remote and self._common.folder == git_folder

    async def refs(self) -> list[Ref]:
        """Branches and tags by name, tags peeled to commits; remote branches that no local branch is named like."""
        form = "%(refname)%00%(objecttype)%00%(objectname)"
        places = ["refs/heads", "refs/tags", *([] if self.is_remote else ["refs/remotes"])]
        lines = (await self._git.run("for-each-ref", f"--format={form}", *places)).decode(errors="replace")
        rows = [line.split("\0") for line in lines.split("\n") if line]
        peeled = await self._peel([row[2] for row in rows if row[1] == "tag"])
        found = [
            _ref(name, peeled.get(target, target)) for name, kind, target in rows if kind in ("commit", "tag")
        ]
        local = {ref.name for ref in found if ref and ref.kind == "branch"}
        return [ref for ref in found if ref and not (ref.kind == "remote branch" and ref.name in local)]

    async def default_branch(self) -> str | None:
        """What HEAD points to; None in an empty repository and when HEAD is detached."""
        name = await self._git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
        return name if name and await self.head() else None

    async def head(self) -> Commit | None:
        """The commit of HEAD; None in an empty repository."""
        commit_id = await self._git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return await self.commit(commit_id) if commit_id else None

    async def commit(self, rev_id: str) -> Commit:
        """The commit with the full id `rev_id`. Raises NotFound."""
        for commit in await self._commits([rev_id] if FULL_ID.fullmatch(rev_id) else []):
            return commit
        raise NotFound(f"The repository has no commit {rev_id[:64]!r}.")

    async def existing(self, ids: Iterable[str]) -> set[str]:
        """Those of the full ids that are in the repository. Raises StepFailed when it cannot be asked."""
        asked = [rev_id for rev_id in ids if FULL_ID.fullmatch(rev_id)]
        if not asked:
            return set()
        lines = "".join(f"{rev_id}\n" for rev_id in asked).encode()
        answers = (
            (await self._git.run("cat-file", "--batch-check=%(objectname)", stdin=lines)).decode().split("\n")
        )
        return set(asked) & set(answers)

    async def resolve(self, label: str, flat_limit: int = LABEL) -> Commit:
        """The commit that a host label names: an id or its prefix (7 letters or more), or a ref's slug.

        Slugs are compared at their full length and cut to `flat_limit`. An unknown label that could be either is
        looked for at the remote, within Search's bounds. Raises Ambiguous, and NotFound with near labels.
        """
        if found := await self._labelled(label, flat_limit):
            return found
        trouble = (
            await self._look_at_remote(label) if _SLUG.fullmatch(label) or _PREFIX.fullmatch(label) else None
        )
        if trouble is None and (found := await self._labelled(label, flat_limit)):
            return found
        raise await self._nothing(label, trouble)

    async def revision(self, text: str) -> Commit:
        """What somebody types: HEAD, main, feature/x, v1.0, an id or prefix, main~2. Raises NotFound, Ambiguous."""
        if found := await self._revision(text):
            return found
        if _PREFIX.fullmatch(text.lower()):
            return await self.resolve(text.lower())
        trouble = await self._look_at_remote(text)
        if trouble is None and (found := await self._revision(text)):
            return found
        raise await self._nothing(text, trouble)

    async def newest(self, count: int) -> list[tuple[Commit, list[Ref]]]:
        """The newest commits by commit date over all branches and tags, each with the refs at it."""
        refs = await self.refs()
        if not refs:
            return []
        tips = "".join(f"{ref.commit}\n" for ref in refs).encode()
        ids = (
            (await self._git.run("rev-list", f"--max-count={count}", "--stdin", stdin=tips)).decode().split()
        )
        at = {commit_id: [ref for ref in refs if ref.commit == commit_id] for commit_id in ids}
        return [(commit, at[commit.id]) for commit in await self._commits(ids)]

    async def ancestors(self, commit_id: str, limit: int) -> list[str]:
        """The first-parent line, nearest first, without the commit itself. Raises NotFound."""
        commit = await self.commit(commit_id)
        counts = ("--first-parent", "--skip=1", f"--max-count={limit}")
        return (await self._git.run("rev-list", *counts, "--end-of-options", commit.id)).decode().split()

    async def fetch(self) -> None:
        """From the remote, or all remotes of a path. Without one, nothing. Raises StepFailed."""
        quiet = ("fetch", "--quiet", "--no-write-fetch-head")
        with disk_watched(self._common.folder):
            if self.is_remote:
                await self._git.run(*quiet, "--prune", "origin", *FETCHED, timeout=REMOTE_TIMEOUT)
                await self._follow_head()
            elif await self._git.ask("remote"):
                await self._git.run(*quiet, "--all", timeout=REMOTE_TIMEOUT)

    async def pull_head(self, number: int) -> Pull | None:
        """Where the remote's pull request is now; None if it has none of that number. Raises StepFailed."""
        names = [name.format(number) for name in PULLS]
        said = (await self._git.run("ls-remote", "origin", *names, timeout=REMOTE_TIMEOUT)).decode()
        for line in said.splitlines():
            commit, _, name = line.partition("\t")
            if FULL_ID.fullmatch(commit) and name in names:
                return Pull(number, commit)
        return None

    async def fetch_pull(self, pull: Pull) -> None:
        """Fetch that one commit, which can be named from then on. Those before it cannot. Raises StepFailed."""
        refspec = f"{pull.commit}:{ALLOWED}{pull.number}/{pull.commit}"
        words = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "origin", refspec)
        with disk_watched(self._common.folder):
            await self._git.run(*words, timeout=REMOTE_TIMEOUT)

    async def look(self, commit: Commit, examine: Callable[[Tree], T]) -> T:
        """What `examine` makes of the commit's files; it runs in a thread and may read as it likes."""
        listing = await self._listings.of(self._git, commit.tree)
        view = _View(Objects(self._git), listing)
        return await in_thread(lambda: view.run(examine), view.objects.kill, LOOK_TIMEOUT)

    async def read(self, commit: Commit, path: str) -> bytes | None:
        """A regular file of the commit, up to 8 MiB; None if there is none such. Raises BadInput if it is larger."""
        return await self.look(commit, lambda tree: tree.read(path))

    async def write_source(
        self,
        commit: Commit,
        folder: Path,
        output: Output,
        neighbours: Sequence[Path] = (),
        linked: bool = False,
    ) -> Written:
        """Write the commit's files, and those of its submodules, into `folder`, which holds nothing yet.

        `neighbours` are releases with a complete `tree` that was written here, the likeliest first: what they have
        is not written again. A manifest beside `folder` lets it be a neighbour in turn. `linked`: the new tree is
        sealed: nobody has the right to write to its files, so that they may be those of a sealed neighbour.

        Raises StepFailed for what cannot be written safely, for a submodule that cannot be had, for a full disk.
        What was written by then stays.
        """
        origin = Origin(self._common, await self._remote_url(), self._checkout)
        parts = await self._parts.find(origin, commit.tree, output)
        writing = Writing(parts, folder, linked)
        with disk_watched(folder):
            await in_thread(lambda: writing.begin(neighbours), writing.stop, WRITE_TIMEOUT)
            trouble = await self._large_files.fetch(writing.large, output)
            place = self._large_files.place
            written = await in_thread(lambda: writing.finish(place), writing.stop, WRITE_TIMEOUT)
        for sentence in written.sentences(commit.short, trouble):
            output(f"{sentence}\n")
        return written

    def large_files_have_come(self, missing: Sequence[str]) -> bool:
        """Whether content of Git LFS, by its oid, that `write_source` missed is there now. Blocks."""
        return self._large_files.have_come(missing, self._common.folder)

    def signature(self) -> Hashable:
        """Differs from an earlier one whenever refs or HEAD may have moved. Cheap enough to poll each second."""
        heads = {self._git.folder / "HEAD", self._common.folder / "HEAD", self._common.folder / "packed-refs"}
        return (*map(_stamp, sorted(heads)), *_stamps(self._common.folder / "refs"), *self._reftable())

    async def _open_path(self, path: Path) -> None:
        if not path.exists():
            raise BadInput(f"{path} does not exist.", "Give the path of a git repository, or a URL to clone.")
        asked = ("rev-parse", "--absolute-git-dir", "--git-common-dir", "--is-bare-repository")
        try:
            folder = path if path.is_dir() else path.parent
            lines = (await run_git(asked, self._environment, folder)).decode().splitlines()
            prefix = (
                (await run_git(("rev-parse", "--show-prefix"), self._environment, folder)).decode().strip()
            )
        except GitFailed as failed:
            raise BadInput(
                f"{path} is not a git repository.", "Make it one with `git init` and a commit."
            ) from failed
        if prefix or not path.is_dir():
            raise BadInput(
                f"{path} lies within a git repository, but is not its top folder.", "Give that folder."
            )
        self._git = Git(Path(lines[0]), self._environment)
        self._common = Git((path / lines[1]).resolve(), self._environment)
        self._checkout = path if lines[2] == "false" else None

    async def _clone(self) -> None:
        """Aside, then renamed: a mirror that is there is whole."""
        aside = self._folder / "mirror.new"
        shutil.rmtree(aside, ignore_errors=True)
        words = ["clone", "--quiet", "--bare", "--end-of-options", self.source, str(aside)]
        try:
            with disk_watched(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                await run_git(words, self._environment, self._folder, timeout=REMOTE_TIMEOUT)
                aside.rename(self._git.folder)
        except GitFailed as failed:
            advice = "Check the URL, and that this machine may read it: git ls-remote " + shown_url(
                self.source
            )
            raise StepFailed(
                f"{self} could not be cloned: {failed.sentence}", advice, failed.last
            ) from failed
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    async def _follow_head(self) -> None:
        """A remote that was empty, or renamed its default branch, has another HEAD than the mirror took over."""
        if await self.head():
            return
        said = await self._git.ask("ls-remote", "--symref", "origin", "HEAD") or ""
        if match := re.match(r"ref: (refs/heads/\S+)\tHEAD", said):
            await self._git.run("symbolic-ref", "HEAD", match[1])

    async def _peel(self, tags: Iterable[str]) -> dict[str, str]:
        """The commits of annotated tags; "" for one of something else."""
        ids = list(tags)
        if not ids:
            return {}
        asked = "".join(f"{tag}^{{commit}}\n" for tag in ids).encode()
        answers = (
            (await self._git.run("cat-file", "--batch-check=%(objectname)", stdin=asked))
            .decode()
            .splitlines()
        )
        return {
            tag: answer if FULL_ID.fullmatch(answer) else "" for tag, answer in zip(ids, answers, strict=True)
        }

    async def _commits(self, ids: list[str]) -> list[Commit]:
        """Those of the full ids that are commits here, in their order."""
        if not ids:
            return []
        content = await self._git.run(
            "cat-file", "--batch", stdin="".join(f"{rev}\n" for rev in ids).encode()
        )
        return list(_parse_batch(content))

    async def _labelled(self, label: str, flat_limit: int) -> Commit | None:
        if FULL_ID.fullmatch(label) and (exact := await self._commits(await self._shown([label]))):
            return exact[0]
        named = [
            ref for ref in await self.refs() if label in (slug(ref.name, LABEL), slug(ref.name, flat_limit))
        ]
        ids = {ref.commit for ref in named}
        if _PREFIX.fullmatch(label):
            ids |= set(
                await self._shown((await self._git.ask("rev-parse", f"--disambiguate={label}") or "").split())
            )
        commits = await self._commits(sorted(ids))
        if len(commits) > 1:
            raise Ambiguous(label, [(commit.id, _described(commit, named)) for commit in commits])
        return commits[0] if commits else None

    async def _revision(self, text: str) -> Commit | None:
        if not text or len(text) > 1000 or not text.isprintable():
            raise BadInput(f"{text[:50]!r} cannot name a commit.", "Give a branch, a tag or a commit id.")
        verify = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
        commit_id = await self._git.ask(*verify)
        if commit_id and FULL_ID.fullmatch(commit_id):
            return await self.commit(commit_id) if await self._shown([commit_id]) else None
        ids = {ref.commit for ref in await self.refs() if ref.name == text}
        return await self.commit(ids.pop()) if len(ids) == 1 else None

    async def _shown(self, ids: Sequence[str]) -> list[str]:
        """Those of the full ids that are not only part of a fork's history: of that its allowed heads are shown."""
        if not self.is_remote or not ids or not await self._git.ask("for-each-ref", "--count=1", ALLOWED):
            return list(ids)
        return [each for each in ids if not await self._is_only_of_a_fork(each)]

    async def _is_only_of_a_fork(self, object_id: str) -> bool:
        """What no ref reaches was there once, and stays; allowed heads keep their refs."""
        said = await self._git.ask("for-each-ref", "--format=%(refname)", f"--contains={object_id}") or ""
        names = said.split()
        of_forks = [name for name in names if name.startswith(ALLOWED)]
        return bool(names) and names == of_forks and not any(name.endswith(object_id) for name in names)

    async def _look_at_remote(self, label: str) -> str | None:
        """None after a fetch; else why there is nothing new, as a sentence that may be empty."""
        if not self.is_remote and not await self._git.ask("remote"):
            return ""
        try:
            fetched = await self._search.look_for(label)
        except StepFailed as failed:
            return f"The remote could not be asked: {failed.sentence}"
        return None if fetched else ""

    async def _nothing(self, label: str, trouble: str | None) -> NotFound:
        if trouble is None:
            self._search.was_in_vain(label)
        newest = await self.newest(200)
        known = [slug(ref.name, LABEL) for ref in await self.refs()] + [commit.short for commit, _ in newest]
        near = difflib.get_close_matches(label[:LABEL], dict.fromkeys(known), n=3)
        return NotFound(f"There is no commit, branch or tag {label[:LABEL]!r}.", trouble or "", near)

    async def _remote_url(self) -> str | None:
        """What relative URLs of submodules start at. Asked of git again when the configuration is another one."""
        if self.is_remote:
            return self.source
        stamp = _stamp(self._common.folder / "config")
        if self._remote is None or self._remote[0] != stamp:
            self._remote = stamp, await self._find_remote_url()
        return self._remote[1]

    async def _find_remote_url(self) -> str | None:
        names = (await self._git.ask("remote") or "").split()
        if not names:
            return None
        name = "origin" if "origin" in names else names[0]
        return await self._git.ask("config", "--get", f"remote.{name}.url")

    def _reftable(self) -> Iterator[Hashable]:
        if (self._common.folder / "reftable").is_dir():
            yield from _stamps(self._common.folder / "reftable")

    def __str__(self) -> str:
        return shown_url(self.source)


class _View:
    """A commit's files as a Tree, for one thread."""

    def __init__(self, objects: Objects, listing: Listing) -> None:
        self.objects = objects
        self._listing = listing

    def run(self, examine: Callable[[Tree], T]) -> T:
        try:
            return examine(Tree(self._listing.names, self._read, self._listing.ids))
        finally:
            self.objects.close()

    def _read(self, path: str) -> bytes | None:
        entry = self._listing.find(path)
        is_file = entry is not None and entry.mode in (FILE, EXECUTABLE)
        content = self.objects.read(entry.object, path) if entry and is_file else None
        if content and len(content) > READ_SIZE:
            raise BadInput(f"{path} is larger than 8 MiB.", "lazycloud reads it whole; make it smaller.")
        return content


def shown_url(source: str) -> str:
    """A source without the password that a URL may carry."""
    return re.sub(r"(?<=://)[^/@]*@", "", source)


def _is_url(source: str) -> bool:
    if "://" in source:
        scheme = urlsplit(source).scheme
        if scheme not in URL_SCHEMES:
            advice = f"Use one of {', '.join(URL_SCHEMES)}, or user@host:path."
            raise BadInput(f"{shown_url(source)} has the scheme {scheme!r}, which cannot be cloned.", advice)
        return True
    return is_scp_like(source) and not Path(source).exists()


def _ref(full_name: str, commit: str) -> Ref | None:
    """None for a tag of something else than a commit, and for a remote's HEAD."""
    _, place, name = full_name.split("/", 2)
    if place == "remotes":
        _, _, name = name.partition("/")
    if not commit or not name or (place == "remotes" and name == "HEAD"):
        return None
    return Ref(name, _KINDS[place], commit)


def _parse_batch(content: bytes) -> Iterator[Commit]:
    while content:
        head, _, content = content.partition(b"\n")
        commit_id, _, rest = head.decode().partition(" ")
        kind, _, size = rest.partition(" ")
        if not size.isdigit():
            continue  # missing
        body, content = content[: int(size)], content[int(size) + 1 :]
        if kind == "commit":
            yield parse_commit(commit_id, body)


def _described(commit: Commit, refs: list[Ref]) -> str:
    names = ", ".join(str(ref) for ref in refs if ref.commit == commit.id)
    return f"{commit.id[:SHORT]} “{commit.subject}”" + (f" ({names})" if names else "")


def _stamp(path: Path) -> Hashable:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _stamps(folder: Path) -> Iterator[Hashable]:
    """Of every file and folder below: a ref that moves is a new file, one that comes or goes changes its folder."""
    yield _stamp(folder)
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from _stamps(Path(entry.path))
        else:
            yield entry.name, _stamp(Path(entry.path))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []  # gone meanwhile: packed
