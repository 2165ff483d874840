"""What people see: the landing page, every sentence we say, the login and the control page."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

import lazycloud
from lazycloud.control.identity import Identity
from lazycloud.control.views import error_view
from lazycloud.errors import Busy, LazycloudError
from lazycloud.router.accept import Form, preferred

TITLES = {
    300: "Which one?",
    401: "Log in",
    403: "Not from there",
    404: "Nothing here",
    405: "Not that way",
    409: "Not now",
    410: "No longer open",
    413: "That is too large",
    415: "Not as a form",
    429: "Too many attempts",
    500: "Our fault",
    502: "The app did not start",
    503: "In a moment",
    504: "It takes longer",
}
REFRESH = 3  # seconds after which a landing page without JavaScript looks again


def web_folder() -> Path:
    """Pages, scripts and styles: inside the wheel, or beside the package in a checkout."""
    package = Path(lazycloud.__file__).parent
    return package / "web" if (package / "web").is_dir() else package.parent / "web"


class Pages:
    """Renders; every page is self-contained, not cacheable, and allows only its own scripts."""

    def __init__(self) -> None:
        self._jinja = Environment(
            loader=FileSystemLoader([web_folder() / "pages", web_folder() / "static"]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def landing(self, progress: dict[str, Any], status: int, may_cancel: bool) -> web.Response:
        answer = self._render(
            "landing.html", status, progress=progress, may_cancel=may_cancel, noscript_refresh=REFRESH
        )
        answer.headers["Lazycloud-Answer"] = "landing"
        answer.headers["Retry-After"] = str(REFRESH)
        return answer

    def login(
        self,
        next_url: str,
        error: str = "",
        account: str = "",
        *,
        status: int = 401,
        retry_after: int = 0,
        ticket: str = "",
        name: str = "",
    ) -> web.Response:
        """`account` is what was written there. With a `ticket`, only whether to log in as `name`."""
        facts = {"next": next_url, "error": error, "account": account, "ticket": ticket, "name": name}
        answer = self._render("login.html", status if error else 200, **facts)
        if retry_after:
            answer.headers["Retry-After"] = str(retry_after)
        return answer

    def password(self, host: str, next_path: str, login: str, error: str = "") -> web.Response:
        """Asks for the password of a preview; `login` is where those log in who can."""
        return self._render("password.html", 401, host=host, next=next_path, login=login, error=error)

    def onward(self, path: str) -> web.Response:
        """Goes to a path of this host at once.

        No redirect: browsers hold the whole chain of redirects after a form against the page's form-action, and
        this one may lead on to a preview's host.
        """
        text = f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(path)}"><title>lazycloud</title>'
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})

    def control(self, address: str, identity: Identity) -> web.Response:
        return self._render("control.html", 200, **_shown(identity), address=address)

    def people(self, identity: Identity) -> web.Response:
        return self._render("people.html", 200, **_shown(identity), kind=str(identity.kind))

    def data(self, app: str, identity: Identity) -> web.Response:
        return self._render("data.html", 200, **_shown(identity), app=app)

    def documents(self, app: str, identity: Identity) -> web.Response:
        return self._render("documents.html", 200, **_shown(identity), app=app)

    def problem(
        self,
        request: web.Request,
        problem: LazycloudError,
        choices: Sequence[dict[str, str]] = (),
        code: str = "",
    ) -> web.Response:
        """A sentence of ours, as HTML, JSON or text, whichever the visitor takes."""
        form, request_id = accepts(request), request.headers.get("X-Request-Id", "")
        if form == "html":
            answer = self._render(
                "message.html",
                problem.status,
                status=problem.status,
                title=TITLES.get(problem.status, "That did not work"),
                sentence=problem.sentence,
                advice=problem.advice,
                choices=choices,
                request_id=request_id,
                code=code,
            )
        elif form == "json":
            error = error_view(problem)["error"] | {"status": problem.status, "request_id": request_id}
            if choices:
                error.setdefault(
                    "choices", [{key: one[key] for key in ("label", "about")} for one in choices]
                )
            answer = web.json_response({"error": error}, status=problem.status)
        else:
            named = [f"  {choice['href']}  {choice['about']}".rstrip() for choice in choices]
            first, last = f"{problem.status} {HTTPStatus(problem.status).phrase}", f"request {request_id}"
            lines = [first, str(problem), *named, code, last if request_id else ""]
            answer = web.Response(text="\n".join(filter(None, lines)) + "\n", status=problem.status)
        if isinstance(problem, Busy):
            answer.headers["Retry-After"] = str(
                problem.retry_after + secrets.randbelow(problem.retry_after + 1)
            )
        answer.headers["Lazycloud-Answer"] = problem.kind.replace(" ", "-")
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _render(self, page: str, http_status: int, /, **context: Any) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        text = self._jinja.get_template(page).render(nonce=nonce, **context)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Lazycloud-Answer": page.removesuffix(".html"),
        }
        return web.Response(text=text, status=http_status, content_type="text/html", headers=headers)


def _shown(identity: Identity) -> dict[str, str]:
    return {"version": lazycloud.__version__, "user": identity.name, "role": str(identity.role)}


def accepts(request: web.Request) -> Form:
    return preferred(request.headers.get("Accept", ""))
