"""What a map gives, as a document may hold it."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from lazycloud.versionbase.expressions.functions import SOUGHT, Failure, Steps, to_text
from lazycloud.versionbase.expressions.syntax import Call, ListOf, Loop, MapOf, Node, parts
from lazycloud.versionbase.values import MAX_DEPTH, Value

_PART = 4  # values that are looked at in a step


def is_made(node: Node) -> bool:
    """Whether it may be something else than a part of the document, or what is true or false."""
    if isinstance(node, (ListOf, MapOf, Loop)):
        return True
    return (isinstance(node, Call) and node.function in _MAKING) or any(map(is_made, parts(node)))


_MAKING = frozenset(("_+_", "_-_", "_*_", "_/_", "-_", "double", "duration"))


_FINE = frozenset((bool, int, type(None), datetime, Decimal))


def kept(value: Any, steps: Steps, depth: int = 0) -> Value:
    """A duration as text, "3600s". Raises Failure for a number that is none; TooCostly for too much.

    Values of one document may be in it many times: it is its size when written that counts.
    """
    kind = type(value)
    if kind in _FINE or (kind is str and len(value) < SOUGHT):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Failure("no finite number")
    elif isinstance(value, (str, bytes)):
        steps.take(len(value) // SOUGHT)
    elif isinstance(value, timedelta):
        return to_text(value, steps)
    elif isinstance(value, (list, dict)):
        if depth >= MAX_DEPTH:
            raise Failure("nested too deep")
        steps.take(1 + len(value) // _PART)
        if isinstance(value, list):
            return [kept(item, steps, depth + 1) for item in value]
        return {name: kept(member, steps, depth + 1) for name, member in value.items()}
    return value
