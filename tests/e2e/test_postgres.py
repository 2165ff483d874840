"""Apps with their data in Postgres: each commit has a database of its own, reached from behind walls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import INSTALLING, Server
from tests.postgres import Postgres

IN_POSTGRES = '[data]\ndatabase = "postgres"\n'
NOTES = """
import http.server, json, os, psycopg
NAME = "{name}"

def database():
    return psycopg.connect(os.environ["DATABASE_URL"])

with database() as db:
    db.execute("CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text)")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with database() as db:
            notes = [row[0] for row in db.execute("SELECT text FROM note ORDER BY id")]
        self.answer(200, dict(name=NAME, notes=notes, environment=dict(os.environ)))
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            with database() as db:
                if self.path == "/sql":
                    return self.answer(200, dict(rows=[str(row) for row in db.execute(text).fetchall()]))
                if self.path == "/connect":
                    psycopg.connect(text).close()
                db.execute("INSERT INTO note (text) VALUES (%s)", [text])
            self.answer(201, dict(name=NAME))
        except psycopg.Error as problem:
            self.answer(500, dict(problem=str(problem)))
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def notes(name: str, **files: str) -> dict[str, str]:
    return {
        "app.py": NOTES.replace("{name}", name),
        "Procfile": "web: python app.py\n",
        "requirements.txt": "psycopg[binary]>=3.2,<4\n",
        "lazycloud.toml": IN_POSTGRES,
        **files,
    }


@pytest.fixture
def tidy(postgres: Postgres) -> Iterator[Postgres]:
    """What servers of the test leave is dropped. Named before them, as it is to outlive them."""
    yield postgres
    with postgres.superuser() as superuser:
        for name in [each for each in postgres.databases() if each.startswith("lazycloud_")]:
            superuser.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false'.encode())
            superuser.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        for name in [each for each in postgres.roles() if each.startswith("lazycloud_")]:
            superuser.execute(f'DROP ROLE "{name}"'.encode())


async def notes_of(server: Server, label: str = "") -> list[str]:
    found: list[str] = (await server.get(label)).json["notes"]
    return found


@pytest.mark.registry
@pytest.mark.slow
async def test_previews_write_while_production_writes(tidy: Postgres, up: Up, checkout: Checkout) -> None:
    checkout.commit(notes("first"))
    server = up(checkout.path, LAZYCLOUD_POSTGRES_URL=tidy.url(), **INSTALLING)
    await server.post("", "of production")
    one, other = checkout.commit(notes("one")), checkout.commit(notes("other"))
    assert await notes_of(server, one[:10]) == await notes_of(server, other[:10]) == ["of production"]

    async def write(label: str) -> set[int]:
        return {(await server.post(label, f"{number}")).status for number in range(20)}

    assert await asyncio.gather(*map(write, ("", one[:10], other[:10]))) == [{201}] * 3
    for label in ("", one[:10], other[:10]):
        assert sorted(await notes_of(server, label)) == sorted(["of production", *map(str, range(20))])

    mine = (await server.get(one[:10])).json["environment"]
    url = mine["DATABASE_URL"]
    assert url == (
        f"postgresql://{mine['PGUSER']}:{mine['PGPASSWORD']}@{mine['PGHOST']}:{mine['PGPORT']}/{mine['PGDATABASE']}"
    )
    assert mine["DATA_DIR"].startswith(str(server.home))
    theirs = (await server.get()).json["environment"]["PGDATABASE"]
    tried = await server.post(one[:10], f"{url.rpartition('/')[0]}/{theirs}", "/connect")
    assert "permission denied for database" in tried.json["problem"]
    tried = await server.post(one[:10], f'DROP DATABASE "{theirs}"', "/sql")
    assert tried.status == 500
    await server.post(one[:10], "DROP SCHEMA public CASCADE", "/sql")
    assert len(await notes_of(server)) == len(await notes_of(server, other[:10])) == 21

    (step,) = [step for step in (await server.inspect(one))["steps"] if step["name"] == "data"]
    assert "Postgres as of " in step["note"]
    server.stop()  # whoever is there next finds everything
    again = up(checkout.path, home=server.home, LAZYCLOUD_POSTGRES_URL=tidy.url())
    assert len(await notes_of(again)) == len(await notes_of(again, other[:10])) == 21
    assert "s3cret" not in again.output + "".join(
        path.read_text(errors="replace") for path in server.home.rglob("*.log")
    )


async def test_a_commit_that_wants_postgres_fails_where_there_is_none(
    shared: Server, shared_checkout: Checkout
) -> None:
    assert await shared.named("good")
    shared_checkout.git("checkout", "-q", "-b", "postgres")
    commit = shared_checkout.commit(counter("second", **{"lazycloud.toml": IN_POSTGRES}))
    answer = await shared.get(commit[:10])
    assert answer.status == 502
    assert "The commit asks for Postgres" in answer.text and "LAZYCLOUD_POSTGRES_URL" in answer.text


async def test_a_server_that_is_away_fails_deploys_and_not_the_start(
    tidy: Postgres, up: Up, checkout: Checkout
) -> None:
    commit = checkout.commit(counter("first", **{"lazycloud.toml": IN_POSTGRES}))
    tidy.stop()
    try:
        server = up(checkout.path, LAZYCLOUD_POSTGRES_URL=tidy.url())
        answer = await server.get(commit[:10])
        assert answer.status == 502
        assert f"127.0.0.1:{tidy.port} cannot be used: " in answer.text and "refused" in answer.text
        assert "s3cret" not in server.output + answer.text
    finally:
        tidy.start()
    commit = checkout.commit(
        {"app.py": LOOKING, "Procfile": "web: python app.py\n", "lazycloud.toml": IN_POSTGRES}
    )
    assert (await server.get(commit[:10])).json["url"].startswith("postgresql://")


async def test_an_app_that_moves_to_postgres_keeps_its_file(
    tidy: Postgres, up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("first"))
    server = up(checkout.path, LAZYCLOUD_POSTGRES_URL=tidy.url())
    await server.post("", "in the file")
    moved = {"app.py": LOOKING, "Procfile": "web: python app.py\n", "lazycloud.toml": IN_POSTGRES}
    second = checkout.commit(moved)
    await server.verb("promote", second, folder=checkout.path)
    found = (await server.get()).json
    assert found["url"].startswith("postgresql://")
    assert found["files"] == ["database.sqlite", "files"]
    assert "an empty Postgres database, as it had none; what is in its folder stays" in await server.verb(
        "logs", "production", folder=checkout.path
    )
    await server.verb("rollback", folder=checkout.path)
    assert (await server.get()).json["notes"] == ["in the file"]


LOOKING = """
import http.server, json, os, pathlib

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        files = sorted(path.name for path in pathlib.Path(os.environ["DATA_DIR"]).parent.iterdir())
        self.send_response(200)
        self.end_headers()
        found = dict(url=os.environ["DATABASE_URL"], files=[each for each in files if "-" not in each])
        self.wfile.write(json.dumps(found).encode())

http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


ASKING = """
import http.server, json, os, pathlib, subprocess

def psql(sql):
    words = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command", sql]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, found):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())
{methods}
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

PSQL = """    def do_GET(self):
        self.answer(dict(name="{name}", notes=psql("SELECT * FROM note ORDER BY 1")))
    def do_POST(self):
        psql(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer(dict())
"""


def by_psql(name: str, release: str, methods: str = PSQL) -> dict[str, str]:
    return {
        "app.py": ASKING.replace("{methods}", methods.replace("{name}", name)),
        "Procfile": f"web: python app.py\nrelease: {release}\n",
        "lazycloud.toml": IN_POSTGRES,
    }


@pytest.mark.slow
async def test_production_is_migrated_rolled_back_and_restored_in_postgres(
    tidy: Postgres, up: Up, checkout: Checkout
) -> None:
    make = "psql -v ON_ERROR_STOP=1 -c 'CREATE TABLE IF NOT EXISTS note (text text)'"
    checkout.commit(by_psql("first", make))
    server = up(checkout.path, LAZYCLOUD_POSTGRES_URL=tidy.url())
    await server.post("", "INSERT INTO note VALUES ('one')")
    stars = "psql -v ON_ERROR_STOP=1 -c 'ALTER TABLE note ADD COLUMN IF NOT EXISTS stars int DEFAULT 5'"
    bad = checkout.commit(by_psql("bad", f'{stars} && test "$LAZYCLOUD_VERSION" != production'))
    assert "release" in await server.verb("promote", bad, folder=checkout.path, code=1)
    assert (await server.get()).json == {"name": "first", "notes": ["one"]}
    good = checkout.commit(by_psql("good", stars))
    said = await server.verb("promote", good, folder=checkout.path)
    assert "table note of postgres: +stars" in said and "rows of" not in said, said
    assert (await server.get()).json == {"name": "good", "notes": ["one|5"]}
    await server.verb("data", "snapshot", "production", "--name", "before", folder=checkout.path)
    await server.post("", "DELETE FROM note")
    assert (await server.get()).json["notes"] == []
    compare = ("data", "diff", "production@before", "production", "--rows", "--table", "note")
    said = await server.verb(*compare, folder=checkout.path)
    assert [line.strip() for line in said.splitlines()] == [
        "postgres", "note: 1 row → 0 rows (1 removed)",
        "It has no primary key: rows are compared whole.", '- text="one", stars=5',
    ]  # fmt: skip
    await server.verb("data", "export", "production@before", "before.sql", folder=checkout.path)
    assert "\none\t5\n" in (checkout.path / "before.sql").read_text()
    await server.verb("data", "export", "production", "now.dump", folder=checkout.path)
    assert (checkout.path / "now.dump").read_bytes().startswith(b"PGDMP")
    said = await server.verb("data", "export", "@before", "no.sqlite", folder=checkout.path, code=None)
    assert (
        "is in Postgres, of which sqlite is no format" in said and not (checkout.path / "no.sqlite").exists()
    )
    would = await server.verb("data", "restore", "production@before", "--dry-run", folder=checkout.path)
    assert "note: 0 rows → 1 row" in would
    await server.verb("data", "restore", "production@before", "--yes", folder=checkout.path)
    assert (await server.get()).json == {"name": "good", "notes": ["one|5"]}
    said = await server.verb("rollback", folder=checkout.path)
    assert "has moved:\n  table note of postgres: +stars\n" in said, said
    assert (await server.get()).json == {"name": "first", "notes": ["one|5"]}
    preview = checkout.commit(by_psql("preview", make))
    assert (await server.get(preview[:10])).json["notes"] == ["one|5"]
    await server.post(preview[:10], "DROP TABLE note")
    assert (await server.get()).json["notes"] == ["one|5"]
    passing = [
        name for name in tidy.databases() if "_migration" in name or "_rehearsal" in name or "_replac" in name
    ]
    assert passing == []


FILED = """    def do_GET(self):
        files = sorted(path.name for path in pathlib.Path(os.environ["DATA_DIR"]).iterdir())
        self.answer(dict(name="{name}", notes=psql("SELECT * FROM note ORDER BY 1"), files=files))
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/file":
            pathlib.Path(os.environ["DATA_DIR"], text).write_text(text)
        else:
            psql(text)
        self.answer(dict())
"""


@pytest.mark.slow
async def test_dumps_are_imported_whole_or_not_at_all(tidy: Postgres, up: Up, checkout: Checkout) -> None:
    make = "psql -v ON_ERROR_STOP=1 -c 'CREATE TABLE IF NOT EXISTS note (text text)'"
    checkout.commit(by_psql("first", make, FILED))
    server = up(checkout.path, LAZYCLOUD_POSTGRES_URL=tidy.url())

    async def verb(*words: str, code: int | None = 0) -> str:
        return await server.verb("data", *words, folder=checkout.path, code=code)

    await server.post("", "INSERT INTO note VALUES ('one'); ALTER ROLE CURRENT_USER SET work_mem = '5MB'")
    await server.post("", "logo", "/file")
    for ending in ("dump", "sql", "tar"):
        await verb("export", "production", f"one.{ending}")
    await server.post("", "DELETE FROM note; INSERT INTO note VALUES ('two')")
    await server.post("", "later", "/file")
    two = {"name": "first", "notes": ["two"], "files": ["later", "logo"]}
    assert (await server.get()).json == two

    touched = checkout.path / "touched"
    (checkout.path / "bad.sql").write_text(
        f"CREATE TABLE note (text text);\nDROP TABLE note;\nCOPY note FROM PROGRAM 'touch {touched}';"
    )
    said = await verb("import", "bad.sql", "production", "--yes", code=2)
    assert "Line 3 of the SQL cannot be taken" in said
    assert (await server.get()).json == two and not touched.exists()
    assert not [name for name in tidy.databases() if "_replac" in name or "_making_" in name]
    said = await verb("import", "one.dump", "production", "--yes")  # files are in no dump, and stay
    assert (await server.get()).json == two | {"notes": ["one"]}
    before = said.rpartition("production@")[2].split()[0]
    await server.post("", "INSERT INTO note VALUES (current_setting('work_mem'))")
    assert (await server.get()).json["notes"] == ["5MB", "one"]
    await verb("restore", f"production@{before}", "--yes")
    assert (await server.get()).json == two

    preview = checkout.commit(by_psql("preview", make, FILED))
    await verb("import", "one.sql", preview, "--yes")  # it has no data yet
    assert (await server.get(preview[:10])).json == {"name": "preview", "notes": ["one"], "files": []}
    await verb("import", "one.tar", preview, "--yes")  # which has files, too
    assert (await server.get(preview[:10])).json == {"name": "preview", "notes": ["one"], "files": ["logo"]}
    assert (await server.get()).json == two
