"""Texts that name the folder they lie in: found, and rewritten for another folder. Pure.

Virtual environments and what bundlers leave name their own place: in shebangs, .pth files, JSON. A text can be
rewritten; in a program, whose offsets are fixed, a longer path has no place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

SHEBANG_MOST = 127  # letters that every kernel, and every tool that writes such lines, takes
_PLAIN = re.compile(r"[\w/.,:@%+=~ -]+")
_PYTHON_LINE = re.compile(rb"#!(/.*/bin/python[\d.]*)\s*")


def is_movable(path: str) -> bool:
    """Whether a path can stand in any script or JSON as it is: no quotes, no backslash, no $."""
    return _PLAIN.fullmatch(path) is not None


def forms(path: str) -> tuple[bytes, ...]:
    """How texts write a path: as it is, as in a URL, as in JSON. The last two often are the first."""
    plain = path.encode("utf-8", "surrogateescape")
    return plain, quote(plain, safe="/~").encode(), json.dumps(path)[1:-1].encode()


class Search:
    """Looks through a file's content, piece by piece, for paths below a folder; `is_text` while there was no NUL."""

    def __init__(self, root: str) -> None:
        self._forms = tuple(dict.fromkeys(forms(f"{root}/")))
        self._overlap = max(map(len, self._forms)) - 1
        self._tail = b""
        self.found = False
        self.is_text = True

    def feed(self, piece: bytes) -> None:
        self.is_text = self.is_text and b"\0" not in piece
        if not self.found:
            seen = self._tail + piece
            self.found = any(form in seen for form in self._forms)
            self._tail = seen[-self._overlap :]


class Rewriting:
    """One file's content, piece by piece. `places` are paths with what they became; the longest counts."""

    def __init__(self, places: Mapping[str, str]) -> None:
        every = [pair for old, new in places.items() for pair in zip(forms(old), forms(new), strict=True)]
        # Where a path in a URL or in JSON looks as everywhere else, the plain form, now the last, wins.
        every.reverse()
        self._new = dict(sorted(every, key=lambda pair: len(pair[0]), reverse=True))
        self._pattern = re.compile(b"|".join(map(re.escape, self._new)))
        self._longest = max(map(len, self._new))
        self._tail = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be told by now: the last letters may be the begin of a longer path."""
        seen = self._tail + piece
        return self._replace(seen, len(seen) - self._longest + 1)

    def end(self) -> bytes:
        return self._replace(self._tail, len(self._tail))

    def _replace(self, seen: bytes, until: int) -> bytes:
        done, at = list[bytes](), 0
        for match in self._pattern.finditer(seen):
            if match.start() >= until:
                break
            done += [seen[at : match.start()], self._new[match[0]]]
            at = match.end()
        sure = max(at, until)
        self._tail = seen[sure:]
        return b"".join([*done, seen[at:sure]])


def rewritten(pieces: Iterator[bytes], places: Mapping[str, str]) -> Iterator[bytes]:
    """A whole content in its new place. A first line that named a Python does so in a way that works there too."""
    rewriting = Rewriting(places)
    first = next(pieces, b"")
    line, newline, rest = first.partition(b"\n")
    if newline and _PYTHON_LINE.fullmatch(line):
        own = Rewriting(places)
        yield _shebang(own.feed(line) + own.end())
        first = rest
    yield rewriting.feed(first)
    for piece in pieces:
        yield rewriting.feed(piece)
    yield rewriting.end()


def _shebang(line: bytes) -> bytes:
    """Kernels follow neither a path with spaces nor a long one.

    sh then runs the second line, which for Python begins a string: as pip and uv write it.
    """
    path = line.removeprefix(b"#!").strip()
    if len(path) <= SHEBANG_MOST - 2 and b" " not in path:
        return b"#!" + path + b"\n"
    return b"#!/bin/sh\n'''exec' '" + path + b"' \"$0\" \"$@\"\n' '''\n"
