"""What a request of the API asks for, as JSON, and what in it is not right."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from lazycloud.errors import BadInput


async def json_body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"The request's body is not valid JSON: {problem}.") from problem
    if not isinstance(body, dict):
        raise BadInput("The request's body must be a JSON object.")
    return body


def text_of(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    line = " ".join(value.split()) if isinstance(value, str) else "\n"
    if len(line) > 1000 or not line.isprintable():
        raise BadInput(f"`{name}` must be a text of at most 1000 printable letters.")
    return line


def flag_of(body: dict[str, Any], name: str) -> bool | None:
    """None where nothing is said."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadInput(f"`{name}` must be true or false.")
    return value
