"""Which names a front may get a certificate for, and how often it may ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from lazycloud import hosts
from lazycloud.config import Config
from lazycloud.control.names import BURST, LOOKS_PER_SECOND, Names
from lazycloud.errors import Ambiguous, Busy, Forbidden, LazycloudError, NotFound
from lazycloud.hosts import Kind, Place

NOWHERE = Place(Kind.UNKNOWN)
COMMITS = {"main", "3f2a9c1"}


class Looking:
    """In a resolver's place: knows two labels, and one that is ambiguous; counts."""

    def __init__(self) -> None:
        self.looks = 0

    def place(self, host: str) -> Place:
        return hosts.find(host, "example.com", {"shop": "example.com", "blog": "blog.example.org"})

    async def find(self, place: Place) -> None:
        self.looks += 1
        if place.label == "abcdef0":
            raise Ambiguous(place.label, [])
        if place.label not in COMMITS:
            raise NotFound("There is no such commit.")


class Asking:
    def __init__(self, *trusted: str) -> None:
        self.now = 0.0
        self.looking = Looking()
        config = Config(Path("/home"), domain="example.com", trusted_proxies=trusted)
        self._names = Names(config, self.looking, lambda: self.now)

    async def ask(self, domain: str, chain: str = "127.0.0.1") -> int | type[LazycloudError]:
        """The status, or the error."""
        path = f"/.well-known/lazycloud/tls-ask?domain={domain}"
        request = make_mocked_request("GET", path, headers={"X-Forwarded-For": chain} if chain else {})
        try:
            return (await self._names.answer(request, NOWHERE)).status
        except LazycloudError as problem:
            return type(problem)


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("example.com", 200),
        ("EXAMPLE.com.", 200),
        ("lazycloud.example.com", 200),
        ("blog.example.org", 200),
        ("main.example.com", 200),
        ("3f2a9c1.blog.example.org", 200),
        ("3f2a9c1--blog.example.com", 200),
        ("abcdef0.example.com", 200),
        ("other.example.com", NotFound),
        ("*.example.com", NotFound),
        ("a.main.example.com", NotFound),
        ("example.org", NotFound),
        ("127.0.0.1", NotFound),
        ("", NotFound),
    ],
)
async def test_a_name_that_leads_somewhere_may_have_a_certificate(
    domain: str, answer: int | type[LazycloudError]
) -> None:
    assert await Asking("127.0.0.1").ask(domain) == answer


@pytest.mark.parametrize("chain", ["", "unknown", "10.0.0.1", "6.6.6.6, 127.0.0.1", "127.0.0.1, 127.0.0.1"])
async def test_who_is_not_a_trusted_proxy_itself_is_told_nothing(chain: str) -> None:
    asking = Asking("127.0.0.1", "::1")
    assert await asking.ask("main.example.com", chain) == Forbidden
    assert asking.looking.looks == 0
    assert await asking.ask("main.example.com", "::1") == 200


async def test_without_a_trusted_proxy_nobody_may_ask() -> None:
    assert await Asking().ask("example.com") == Forbidden


async def test_a_flood_of_names_costs_few_looks_and_leaves_the_apps_their_certificates() -> None:
    asking = Asking("127.0.0.0/8")
    answers = [await asking.ask(f"name-{number}.example.com") for number in range(BURST * 4)]
    assert answers == [NotFound] * BURST + [Busy] * (BURST * 3)
    assert asking.looking.looks == BURST
    assert await asking.ask("example.com") == 200
    asking.now += 1
    answers = [await asking.ask("main.example.com") for _ in range(20)]
    assert answers.count(200) == LOOKS_PER_SECOND
    asking.now += 3600
    assert [await asking.ask("main.example.com") for _ in range(BURST + 1)].count(200) == BURST
