"""SQL as it is written for psql, apart: its statements, and the rows that follow a COPY. Pure but for what it reads.

Quotes, comments and bodies of functions are seen as psql sees them. Of psql's own commands none is known, and all are
refused but those two that newer dumps have at their edges, against just such commands.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lazycloud.errors import BadInput

LONGEST = 200_000_000  # bytes of one statement, or of a row of COPY
PIECE = 1 << 18
_BLANK = re.compile(rb"(?:\s++|--[^\n]*+(?:\n|\Z)|/\*.*?\*/)*+", re.DOTALL)
_COMMAND = re.compile(rb"\\([^\s\\]*)")
_EDGE = re.compile(rb"\\(?:un)?restrict[ \t][^\n]*\n")
_TAG = re.compile(rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")
_HALF_A_TAG = re.compile(rb"\$[A-Za-z0-9_\x80-\xff]*\Z")
_COMMENT = re.compile(rb"/\*|\*/")
_ROUTINE = re.compile(rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE|RULE)\b", re.IGNORECASE)
_ESCAPED = rb"'(?:[^'\\]++|\\.|'')*+'"
_PLAIN = rb"'[^']*+'"
# All that has no meaning for where a statement ends, as far as it is there whole. E'…' has backslashes that escape,
# and with the setting of old every string has; a $ within a name begins no quote.
_WITHIN = {
    escapes: re.compile(
        rb"(?:[^'\"$/;\\-]++|(?<=[eE])(?<![\w$\x80-\xff][eE])" + _ESCAPED +
        rb"|(?:(?<![eE])|(?<=[\w$\x80-\xff][eE]))" + (_ESCAPED if escapes else _PLAIN) +
        rb"|\"[^\"]*+\"|(?<=[\w\x80-\xff])\$|--[^\n]*+\n|-(?=[^-])|/(?=[^*]))*+",
        re.DOTALL,
    )
    for escapes in (False, True)
}  # fmt: skip
_LAST_ROW = (b"\\.\n", b"\\.\r\n")
_WORDS = re.compile(
    rb"[eE]'(?:[^'\\]|\\.|'')*'|'[^']*'|\"[^\"]*\"|--[^\n]*\n|/\*.*?\*/"
    rb"|(\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$).*?\1|([A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)|([()])",
    re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """`line` on which it begins, from 1; `text` without what is blank before it, with its semicolon."""

    line: int
    text: bytes

    def line_at(self, position: int) -> int:
        """That of a letter of it, from 1, as Postgres counts them."""
        return self.line + self.text.decode(errors="replace")[: max(0, position - 1)].count("\n")


class Script:
    """A file, read once: whoever runs a statement that wants rows takes them by `rows` before the next one.

    `escapes` is to be set while backslashes escape in all strings (standard_conforming_strings is off).
    """

    def __init__(self, file: BinaryIO) -> None:
        self.escapes = False
        self._file = file
        self._found = bytearray(file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8))
        self._line = 1
        self._is_read = False

    def statements(self) -> Iterator[Statement]:
        """Raises BadInput for a command of psql, for a statement without an end, for what is no text."""
        while True:
            self._skip_edges()
            end = self._end()
            if end < 0:
                if self._more():
                    continue
                self._demand_nothing()
                return
            text = self._take(end)
            if b"\0" in text:
                raise BadInput(
                    f"There is a NUL byte on line {self._line} of the SQL, or after it: it is no text."
                )
            blank = _beginning(text)
            statement = Statement(self._line + text.count(b"\n", 0, blank), text[blank:])
            self._line += text.count(b"\n")
            if statement.text.strip(b"; \t\r\n"):
                yield statement

    def rows(self) -> Iterator[bytes]:
        """What follows a COPY up to the line that ends it, in pieces. Raises BadInput without such a line."""
        began = self._line
        if not self._take_line().isspace():
            raise BadInput(
                f"Rows of a COPY are to begin on a line of their own, after line {began} of the SQL."
            )
        began = self._line
        while True:
            start, end = self._last_row()
            if end:
                yield self._counted(start)
                self._counted(end - start)
                return
            if whole := self._found.rfind(b"\n", 0, -1) + 1:  # the last line may be the one that ends them
                yield self._counted(whole)
            if not self._more():
                raise BadInput(
                    f"The rows that begin on line {began} of the SQL have no end: the file was cut off."
                )

    def _last_row(self) -> tuple[int, int]:
        """Where the line is that ends rows, from and to; (0, 0) while it is not there whole."""
        at = 0
        while not self._found.startswith(_LAST_ROW, at):
            at = self._found.find(b"\n\\.", at) + 1
            if not at:
                return 0, 0
        return at, self._found.find(b"\n", at) + 1

    def _counted(self, size: int) -> bytes:
        piece = self._take(size)
        self._line += piece.count(b"\n")
        return piece

    def _take(self, size: int) -> bytes:
        piece = bytes(self._found[:size])
        del self._found[:size]
        return piece

    def _take_line(self) -> bytes:
        while (end := self._found.find(b"\n") + 1) == 0 and self._more():
            pass
        return self._counted(end or len(self._found))

    def _more(self) -> bool:
        """Read as much as there is, so that what is looked at anew is not looked at often. False at the end."""
        if len(self._found) > LONGEST:
            raise BadInput(
                f"What begins on line {self._line} of the SQL is longer than {LONGEST // 1_000_000} MB."
            )
        piece = self._file.read(max(PIECE, len(self._found)))
        if not piece and not self._is_read:
            self._is_read = True
            piece = b"\n"  # of a comment on the last line
        self._found += piece
        return bool(piece)

    def _skip_edges(self) -> None:
        """Of a newer dump: nothing here knows commands that would have to be refused."""
        while True:
            blank = _beginning(self._found)
            edge = _EDGE.match(self._found, blank)
            if not edge:
                return
            self._counted(edge.end())

    def _demand_nothing(self) -> None:
        blank = _beginning(self._found)
        if blank < len(self._found):
            line = self._line + self._found.count(b"\n", 0, blank)
            raise BadInput(
                f"The statement on line {line} of the SQL has no end: the file was cut off, or is no SQL."
            )

    def _end(self) -> int:
        """Behind the semicolon of the first statement; -1 if it is not there yet. Raises BadInput for a command."""
        at = _beginning(self._found)
        body = _Body(at) if _ROUTINE.match(self._found, at) else None
        while at < len(self._found):
            whole = _WITHIN[self.escapes].match(self._found, at)
            assert whole
            at = whole.end()
            sign = bytes(self._found[at : at + 1])
            if sign == b";":
                at += 1
                if body is None or body.is_whole(self._found, at):
                    return at
            elif sign == b"\\":
                if not self._is_read and self._found.find(b"\n", at) < 0:
                    return -1
                self._refuse(at)
            else:
                at = self._behind(sign, at)
                if at < 0:
                    return -1
        return -1

    def _behind(self, sign: bytes, at: int) -> int:
        """What begins there; -1 if its end is not there yet."""
        if sign == b"$":
            tag = _TAG.match(self._found, at)
            if tag is None:
                return -1 if _HALF_A_TAG.match(self._found, at) else at + 1
            end = self._found.find(tag[0], tag.end())
            return end + len(tag[0]) if end >= 0 else -1
        if sign == b"/" and self._found[at + 1 : at + 2] == b"*":
            return _behind_comment(self._found, at)
        return -1

    def _refuse(self, at: int) -> None:
        line = self._line + self._found.count(b"\n", 0, at)
        command = _COMMAND.match(self._found, at)
        assert command
        name = command[1][:20].decode(errors="replace")
        raise BadInput(
            f"Line {line} of the SQL has \\{name}, a command of psql’s, and no such is run here.",
            "A dump of one database has none: `pg_dump --no-owner --no-privileges` makes one.",
        )


def _behind_comment(text: bytearray, at: int) -> int:
    """Comments can be within each other; -1 if it has no end yet."""
    depth = 0
    for mark in _COMMENT.finditer(text, at):
        depth += 1 if mark[0] == b"/*" else -1
        if depth == 0:
            return mark.end()
    return -1


def _beginning(text: bytes | bytearray) -> int:
    blank = _BLANK.match(text)
    assert blank
    return blank.end()


class _Body:
    """Of a routine's statement: bodies, and the commands of a rule, have semicolons of their own."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._depth = 0  # of parentheses
        self._open = 0  # bodies and cases without their end

    def is_whole(self, text: bytearray, end: int) -> bool:
        """Whether a semicolon ends it all; to be asked of one after the other."""
        for token in _WORDS.finditer(text, self._at, end):
            word = (token[2] or b"").upper()
            if token[3]:
                self._depth = max(0, self._depth + (1 if token[3] == b"(" else -1))
            elif self._depth == 0 and (word == b"BEGIN" or (word == b"CASE" and self._open)):
                self._open += 1
            elif self._depth == 0 and word == b"END" and self._open:
                self._open -= 1
        self._at = end
        return self._depth == self._open == 0
