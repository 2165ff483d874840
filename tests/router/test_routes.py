from __future__ import annotations

import pytest

from lazycloud.router import routes
from lazycloud.router.routes import BadRoute, Table, ToControl, ToWorker, read_route, split_address


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("127.0.0.1:21001", ("127.0.0.1", 21001)),
        ("[::1]:80", ("::1", 80)),
        ("172.17.0.2:8080", ("172.17.0.2", 8080)),
    ],
)
def test_an_address_is_an_ip_and_a_port(address: str, split: tuple[str, int]) -> None:
    assert split_address(address) == split


@pytest.mark.parametrize(
    "address",
    [
        "localhost:80",
        "example.com:80",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:80",
        "[::1]",
        "1.2.3:80",
        "/x",
        "",
    ],
)
def test_what_would_have_to_be_looked_up_is_no_address(address: str) -> None:
    with pytest.raises(BadRoute):
        split_address(address)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"to": "worker"},
        {"to": "worker", "deployment": "d"},
        {"to": "worker", "deployment": "d", "address": "evil.example:80"},
        {"to": "worker", "deployment": "d", "addresses": []},
        {"to": "worker", "deployment": "d", "addresses": "127.0.0.1:80"},
        {"to": "worker", "deployment": "d", "addresses": ["127.0.0.1:80", "evil.example:80"]},
        {"to": "worker", "deployment": "d", "addresses": ["127.0.0.1:80", 80]},
        {"to": "control", "reason": "a\r\nX: y"},
        {"to": "elsewhere"},
        {"to": "control", "reason": 5},
        None,
        "page",
    ],
)
def test_a_route_that_makes_no_sense_is_refused(said: object) -> None:
    with pytest.raises(BadRoute):
        read_route(said)


def test_the_table_forgets_by_deployment_by_host_and_all() -> None:
    table = Table()
    table.keep("a", ToWorker("d1", ("127.0.0.1:1",)))
    table.keep("b", ToWorker("d1", ("127.0.0.1:1", "127.0.0.1:2")))
    table.keep("c", ToWorker("d2", ("127.0.0.1:3",)))
    table.keep("d", ToControl("page"))
    assert table.move("d1", ()) == {"127.0.0.1:1", "127.0.0.1:2"}
    assert table.find("a") is None
    assert len(table) == 2
    table.forget_hosts(["d", "unknown"])
    assert len(table) == 1
    table.forget_all()
    assert len(table) == 0


def test_all_hosts_of_a_deployment_move_and_those_with_a_login_keep_it() -> None:
    table = Table()
    table.keep("a", ToWorker("d1", ("127.0.0.1:1",)))
    table.keep("b", ToWorker("d1", ("127.0.0.1:1",), login=True))
    table.keep("c", ToWorker("d2", ("127.0.0.1:3",)))
    after = ("127.0.0.1:4", "127.0.0.1:5")
    assert table.move("d1", after) == {"127.0.0.1:1"}
    assert table.find("a") == ToWorker("d1", after)
    assert table.find("b") == ToWorker("d1", after, login=True)
    assert table.find("c") == ToWorker("d2", ("127.0.0.1:3",))


def test_a_route_names_each_address_once_and_one_of_the_version_before_has_one() -> None:
    said = {"to": "worker", "deployment": "d", "address": "127.0.0.1:1"}
    assert read_route(said) == ToWorker("d", ("127.0.0.1:1",))
    said["addresses"] = ["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"]
    assert read_route(said) == ToWorker("d", ("127.0.0.1:2", "127.0.0.1:1"))


def test_a_route_that_was_replaced_meanwhile_is_not_dropped() -> None:
    table = Table()
    table.keep("a", ToWorker("d1", ("127.0.0.1:2",)))
    table.drop("a", ToWorker("d1", ("127.0.0.1:1",)))
    assert table.find("a") == ToWorker("d1", ("127.0.0.1:2",))


def test_what_strangers_name_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "ROUTES_MAX", 3)
    monkeypatch.setattr(routes, "PASSING_MAX", 3)
    table, page = Table(), ToControl("page")
    for host in "abcd":
        table.keep(host, page)
        table.keep_until(f"no-{host}", page, 10.0)
    assert [table.find(host) for host in "abcd"] == [None, page, page, page]
    assert [table.find_passing(f"no-{host}", 9.0) for host in "abcd"] == [None, page, page, page]


def test_what_was_kept_for_a_while_is_forgotten_then_and_when_something_better_is_known() -> None:
    table, page, worker = Table(), ToControl("page"), ToWorker("d1", ("127.0.0.1:1",))
    table.keep_until("a", page, 10.0)
    table.keep_until("b", page, 10.0)
    assert (table.find_passing("a", 10.0), table.find_passing("a", 10.1)) == (page, None)
    table.keep("b", worker)
    assert (table.find("b"), table.find_passing("b", 9.0)) == (worker, None)
    table.keep_until("b", page, 10.0)
    assert table.find_passing("b", 9.0) is None
    table.keep_until("c", page, 10.0)
    table.forget_all()
    assert table.find_passing("c", 9.0) is None
