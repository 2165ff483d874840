"""What the installed hooks run: tell the server what is new, within a bound, whatever happens.

Every commit waits for this. Python starts in 10 ms; `socket`, `json`, `signal` and `subprocess` take as long again
each, click and http.client five times that. So it imports what is in the interpreter already, and what has to be
thought about is thought about by the server: `POST /api/announce`, a form, answered by a line of text.

Hooks run `main` without site-packages (-S); on its standard input is what git says, a line each:

    the git folder that all work trees share
    the URL of the remote `origin`, or nothing
    then of post-commit: the two folders of a rebase, the commit, its ref
    of post-receive: `old new ref` on each line
"""

import os
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # `socket` is this and 10 ms of enums

PATIENCE = 2.0  # seconds, in all: what a commit may wait for a server that hangs
PAUSE = 0.02  # seconds, between looks for a control that is being replaced
LONGEST = 65536  # bytes of an answer that are read
GENERATION, API = "generation", "api"  # in the server's run folder; config.py has them too
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")

News = tuple[str, str]
"""The id of a commit (or of a tag) and the ref that names it now."""


class TookTooLong(Exception):
    """The patience is at its end."""


class NotRunning(Exception):
    """Nobody listens for that home."""


def main() -> None:
    """Of `python -c … LIBRARY RUN HOOK`."""
    run, hook = sys.argv[2:4]
    tell(run, hook, sys.stdin.buffer.read())


def tell(run: str, hook: str, said: bytes) -> None:
    """Announce what git said to that hook; prints addresses, or why there are none. Raises nothing.

    `run` is the folder of the server's sockets.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may lack our characters
    deadline = time.monotonic() + PATIENCE
    try:
        folder, origin, *lines = os.fsdecode(said).split("\n")
        news = committed(lines) if hook == "post-commit" else received(lines)
        place = {"repository": os.path.join(os.getcwd(), folder), "origin": origin}
        for commit, ref in news:
            _announce(run, place | {"commit": commit, "ref": ref}, deadline)
    except TookTooLong:
        _murmur(
            f"lazycloud did not answer within {PATIENCE:.0f} s; it sees the commit when it is asked for it."
        )
    except NotRunning:
        _murmur("lazycloud is not running; `lazycloud up` serves this commit.")
    except (OSError, ValueError) as problem:
        _murmur(f"lazycloud: {problem}")


def committed(lines: list[str]) -> list[News]:
    """The commit just made; none while a rebase makes many that are passed by."""
    if len(lines) < 4:
        return []
    merging, applying, commit, ref = lines[:4]
    return [] if os.path.isdir(merging) or os.path.isdir(applying) else [(commit, ref)]


def received(lines: list[str]) -> list[News]:
    """The branches and tags pushed; deleted ones are no news."""
    news = []
    for line in lines:
        _, _, pushed = line.partition(" ")
        new, _, ref = pushed.partition(" ")
        if new.strip("0") and ref.startswith(("refs/heads/", "refs/tags/")):
            news.append((new, ref))
    return news


def _announce(run: str, form: dict[str, str], deadline: float) -> None:
    body = "&".join(f"{name}={_quoted(value)}" for name, value in form.items())
    head = (
        "POST /api/announce HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    status, text = _answer(_ask(run, (head + body).encode("ascii"), deadline))
    if status == 200 and text.startswith(("http://", "https://")):
        print(f"→ {text}", flush=True)
    elif status > 200 and text and text[0] not in "<{0123456789":  # no page, object or "404: Not Found"
        _murmur(f"lazycloud: {text}")
    else:
        _murmur("The lazycloud that runs does not understand this hook; `lazycloud upgrade` replaces it.")


def _ask(run: str, request: bytes, deadline: float) -> bytes:
    peer = _connected(run, deadline)
    try:
        peer.settimeout(_left(deadline))
        peer.sendall(request)
        answer = b""
        while len(answer) < LONGEST:
            peer.settimeout(_left(deadline))
            piece = peer.recv(LONGEST)
            if not piece:
                break
            answer += piece
        return answer
    except TimeoutError:
        raise TookTooLong from None
    finally:
        peer.close()


def _connected(run: str, deadline: float) -> socket:
    """Waits while control is away of a server that goes on: it is being replaced, or started again."""
    while True:
        peer = socket(AF_UNIX, SOCK_STREAM)
        peer.settimeout(_left(deadline))
        try:
            peer.connect(os.path.join(run, API))
        except (FileNotFoundError, ConnectionRefusedError):
            peer.close()
            if not _goes_on(os.path.join(run, GENERATION)):
                raise NotRunning from None
            time.sleep(PAUSE)
        except TimeoutError:
            peer.close()
            raise TookTooLong from None
        else:
            return peer


def _goes_on(generation: str) -> bool:
    """Whether the server's process, which notes itself there, is alive."""
    import json

    try:
        with open(generation) as file:
            os.kill(json.load(file)["pid"], 0)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _left(deadline: float) -> float:
    """Seconds until then. Raises TookTooLong."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TookTooLong
    return left


def _answer(whole: bytes) -> tuple[int, str]:
    """Status and first line of an answer; 0 for what is no HTTP. Nothing of it can move a terminal's cursor."""
    head, _, body = whole.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0, ""
    line = body.decode(errors="replace").partition("\n")[0]
    return int(words[1]), "".join(letter for letter in line if letter.isprintable())


def _quoted(value: str) -> str:
    return "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in os.fsencode(value))


def _murmur(sentence: str) -> None:
    dim, plain = ("\033[2m", "\033[0m") if sys.stderr.isatty() else ("", "")
    print(f"{dim}{sentence}{plain}", file=sys.stderr, flush=True)
