"""From `git commit` to its own address, on real repositories, workers and sockets."""

from __future__ import annotations

import asyncio
from functools import partial

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER


async def test_each_commit_answers_at_its_own_address_with_its_own_data(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path)
    assert (await server.post("", "from production")).json == {"name": "second"}
    assert (await server.get(first)).json["notes"] == ["from production"]
    assert (await server.post(first[:10], "from first")).status == 201
    assert (await server.post(second[:7], "from second")).status == 201
    assert (await server.get(first)).json["notes"] == ["from production", "from first"]
    assert (await server.get(second)).json["notes"] == ["from production", "from second"]
    production = (await server.get()).json
    assert (production["name"], production["notes"]) == ("second", ["from production"])


async def test_a_worker_gets_what_it_is_promised_and_nothing_of_ours(up: Up, checkout: Checkout) -> None:
    commit = checkout.commit(counter("app"))
    server = up(checkout.path, SECRET_OF_OURS="x", PYTHONPATH_LEAK="y")
    environment = (await server.get(commit)).json["environment"]
    assert environment["COMMIT_ID"] == environment["LAZYCLOUD_VERSION"] == commit
    assert environment["LAZYCLOUD_APP"] == "shop"
    assert environment["LAZYCLOUD_URL"] == f"http://{commit[:10]}.localhost:{server.port}/"
    assert environment["HOST"] == "127.0.0.1"
    assert environment["DATABASE_URL"].startswith("sqlite:////")
    assert environment["DATA_DIR"].startswith("/")
    assert not [
        name
        for name in environment
        if "LEAK" in name or "SECRET" in name or name.startswith("LAZYCLOUD_HOME")
    ]
    assert (await server.get()).json["environment"]["LAZYCLOUD_VERSION"] == "production"


async def test_fifty_cold_requests_are_one_deploy_and_fifty_answers(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    server = up(checkout.path)
    answers = await asyncio.gather(*(server.get(first, f"/{number}") for number in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert [answer.json["path"] for answer in answers] == [f"/{number}" for number in range(50)]
    assert len({answer.json["pid"] for answer in answers}) == 1
    inspected = server.json("inspect", first, "--app", "shop")
    assert inspected["attempt"] == 1


async def test_twenty_cold_commits_at_once_are_all_answered_with_bounded_work(
    up: Up, checkout: Checkout
) -> None:
    commits = [checkout.commit(counter(f"commit {number}")) for number in range(20)]
    server = up(checkout.path, "--builds", "2")
    answers = await asyncio.gather(*map(server.get, commits))
    assert [answer.json["name"] for answer in answers] == [f"commit {number}" for number in range(20)]
    at_work, most = set(), 0
    assert {row["state"] for row in server.json("ls", "--app", "shop")} == {"ready"}
    for event in events(server):
        if event["kind"] == "state_changed":
            (at_work.add if event["after"] == "building" else at_work.discard)(event["deployment"])
            most = max(most, len(at_work))
    assert 1 <= most <= 2


def events(server) -> list[dict]:
    """All facts, from the owner's socket."""
    from lazycloud.cli.client import Client

    return list(Client.local(server.home).stream("/api/events"))


async def test_a_page_view_gets_the_landing_page_and_everything_else_is_held(
    up: Up, checkout: Checkout
) -> None:
    first = checkout.commit(counter("first"), "A <b>bold</b> first")
    checkout.commit(counter("second"))
    server = up(checkout.path)
    landing = await server.get(first, "/deep/path?q=1", **BROWSER)
    assert landing.status == 503, server.output
    assert landing.headers["Cache-Control"] == "no-store"
    assert "Retry-After" in landing.headers
    assert "A &lt;b&gt;bold&lt;/b&gt; first" in landing.text
    assert (await server.get(first, "/deep/path?q=1")).json["path"] == "/deep/path?q=1"
    assert (await server.get(first, "/deep", **BROWSER)).text.startswith("<h1>first</h1>")


async def test_a_branch_and_a_tag_are_addresses_that_move_with_them(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("main"))
    checkout.git("checkout", "-qb", "feature/Add_Login")
    checkout.commit(counter("login 1"))
    checkout.git("tag", "v1.0")
    server = up(checkout.path, "--production", "main")
    assert (await server.get("feature-add-login")).json["name"] == "login 1"
    assert (await server.get("feature-add-login--shop")).json["name"] == "login 1"
    assert (await server.get("v1-0")).json["name"] == "login 1"
    assert (await server.get()).json["name"] == "main"
    checkout.commit(counter("login 2"))

    await server.until(partial(server.named, "login 2", "feature-add-login"))
    assert (await server.get("v1-0")).json["name"] == "login 1"


async def test_several_apps_each_have_their_domain(up: Up, checkout: Checkout, tmp_path) -> None:
    shop = checkout.commit(counter("shop"))
    blog = Checkout(tmp_path / "blog")
    post = blog.commit(counter("blog"))
    server = up(checkout.path, blog.path)
    assert (await server.get()).json["name"] == "shop"
    assert (await server.get("shop")).json["name"] == "shop"
    assert (await server.get("blog")).json["name"] == "blog"
    assert (await server.get(f"{post[:12]}.blog")).json["name"] == "blog"
    assert (await server.get(f"{post[:12]}--blog")).json["name"] == "blog"
    assert (await server.get(f"{shop[:12]}--blog")).status == 404


async def test_data_can_come_from_the_parent_or_be_empty(up: Up, checkout: Checkout) -> None:
    base = checkout.commit(counter("base"))
    child = checkout.commit(counter("child", **{"lazycloud.toml": '[data]\nfrom = "parent"\n'}))
    lone = checkout.commit(counter("lone", **{"lazycloud.toml": '[data]\nfrom = "empty"\n'}))
    server = up(checkout.path)
    await server.post("", "production's")
    await server.post(base, "base's")
    assert (await server.get(child)).json["notes"] == ["production's", "base's"]
    assert (await server.get(lone)).json["notes"] == []


async def test_a_commit_made_now_is_there_now(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("first"))
    server = up(checkout.path)
    assert (await server.get()).json["name"] == "first"
    new = checkout.commit(counter("new"))
    assert (await server.get(new)).json["name"] == "new"


async def test_the_owner_s_verbs_tell_what_there_is(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"), "The first one")
    second = checkout.commit(counter("second"), "The second one")
    server = up(checkout.path)
    await server.get(first)
    rows = server.json("ls", folder=checkout.path)
    assert [row["commit"]["id"] for row in rows] == [second, first]
    assert rows[0]["is_production"]
    assert {row["state"] for row in rows} <= {"ready", "cold"}
    running = server.json("ps", folder=checkout.path)
    assert {row["commit"]["id"] for row in running} == {first, second}
    assert all(row["memory"] > 1_000_000 for row in running)
    inspected = server.json("inspect", first, folder=checkout.path)
    assert inspected["run"] == "python app.py"
    assert inspected["steps"][0]["name"] == "source"
    assert inspected["data"]["from"] == "production"
    assert "The first one" in server.cli("ls", folder=checkout.path)
    assert server.cli("stop", first, folder=checkout.path)
    assert (await server.get(first)).json["name"] == "first"
