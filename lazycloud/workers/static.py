"""A worker that serves a folder of files: `PORT=8080 python -I -m lazycloud.workers.static FOLDER`.

Clean URLs (/about is about.html), index.html for folders, 404.html for what is not there. Never a listing,
a dotfile (but .well-known), or a file outside the folder, whatever a path or a symlink says.
"""

from __future__ import annotations

import mimetypes
import os
import sys
from pathlib import Path
from urllib.parse import quote, unquote

from aiohttp import web

# Kept, and asked for again each time: a 304 is cheap, and after a promote nobody sees yesterday's style sheet.
HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
VISIBLE = ".well-known"
STOP = 5.0  # seconds that answers under way are given at TERM

# A table of our own: the machine's differs from one to the next, and slim ones have none.
TYPES = mimetypes.MimeTypes()
for _ending, _kind in {
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",  # it names its encoding itself
}.items():
    TYPES.add_type(_kind, _ending)


class Folder:
    """The files below `root`, as paths of URLs name them."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """A file, a redirect to the folder's own URL, or the page for what is not there."""
        path = request.rel_url.raw_path
        parts = [unquote(part) for part in path.split("/") if part]
        if any("/" in part or "\0" in part for part in parts):
            return self._missing()
        if found := self._file(parts, path.endswith("/")):
            return web.FileResponse(found, headers={**HEADERS, "Content-Type": _content_type(found)})
        if not path.endswith("/") and self._file(parts, is_folder=True):
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            # Made of parts, as "//host" of a request would lead to another host.
            raise web.HTTPPermanentRedirect(f"/{'/'.join(map(quote, parts))}/{query}")
        return self._missing()

    def _file(self, parts: list[str], is_folder: bool) -> Path | None:
        place = self._root.joinpath(*parts)
        if is_folder or not parts:
            return self._visible(place / "index.html")
        return self._visible(place) or self._visible(place.with_name(f"{place.name}.html"))

    def _visible(self, place: Path) -> Path | None:
        """The file that a path leads to, if it is one that may be seen."""
        try:
            real = place.resolve(strict=True)
            shown = [*place.relative_to(self._root).parts, *real.relative_to(self._root).parts]
        except (OSError, ValueError, RuntimeError):  # not there, outside, a loop of symlinks
            return None
        hidden = any(part.startswith(".") and part != VISIBLE for part in shown)
        return real if real.is_file() and not hidden else None

    def _missing(self) -> web.Response:
        """Not a FileResponse: that would answer ranges and conditions of what was not found."""
        page = self._visible(self._root / "404.html")
        if page is None:
            return web.Response(status=404, text="404: Not Found\n", headers=HEADERS)
        headers = {**HEADERS, "Content-Type": _content_type(page)}
        return web.Response(status=404, body=page.read_bytes(), headers=headers)


def application(root: Path) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", Folder(root).answer)
    return app


def main(arguments: list[str]) -> int:
    """Serve until TERM. Exit status 2 for misuse."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(
            f"{' '.join(arguments) or 'No folder'}: give one folder whose files are to be served.",
            file=sys.stderr,
        )
        return 2
    host, port = os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "")
    if not port.isdecimal():
        print(f"PORT is {port!r}: set it to the number of the port to listen on.", file=sys.stderr)
        return 2
    web.run_app(
        application(Path(arguments[0])),
        host=host,
        port=int(port),
        print=lambda *_: None,
        access_log=None,
        shutdown_timeout=STOP,
    )
    return 0


def _content_type(file: Path) -> str:
    kind = TYPES.guess_type(file.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
