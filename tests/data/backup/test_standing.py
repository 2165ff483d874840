"""What is known of backups without a server."""

import time
from dataclasses import replace
from pathlib import Path

from lazycloud.data.backup.standing import FILE, Standing, findings, read, write


def test_what_is_written_down_is_read_again_and_what_cannot_be_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    shop = Standing(
        1.5, "id", "file:///x", damaged=("a",), full_at=1.0, sound=("database.sqlite",), layered="b"
    )
    standing = {"shop": shop, "blog": Standing(problem="away")}
    write(tmp_path, standing)
    assert read(tmp_path) == standing
    (tmp_path / FILE).write_text(
        '{"shop": {"at": 1.5, "id": "id", "damaged": ["a"]}}'
    )  # of before there were layers
    assert read(tmp_path) == {"shop": Standing(1.5, "id", damaged=("a",))}
    for text in ("", "[]", '{"shop": {"new": 1}}', '{"shop": 3}'):
        (tmp_path / FILE).write_text(text)
        assert read(tmp_path) == {}


def test_the_doctor_says_how_it_is_with_backups(tmp_path: Path) -> None:
    (none,) = findings(tmp_path, "")
    assert none.weight.name == "LIMITED" and "not backed up" in none.sentence
    store = f"file://{tmp_path}/store"
    (away,) = findings(tmp_path, store)
    assert away.weight.name == "BROKEN" and "is not there" in away.sentence
    (tmp_path / "store").mkdir()
    assert list(findings(tmp_path, store)) == []
    write(
        tmp_path,
        {
            "good": Standing(time.time() - 30, "id", store, size=2_000_000),
            "noted": Standing(time.time() - 7300, "id", store, note="files/x is no whole database."),
            "bad": Standing(
                1.0, "id", store, problem="It is full.", advice="Make room.", since=time.time() - 600
            ),
            "elsewhere": Standing(1.0, "id", "file:///other"),
        },
    )
    found = {one.sentence.partition(" ")[0].rstrip(":"): one for one in findings(tmp_path, store)}
    assert sorted(found) == ["bad", "good", "noted"]
    assert "30 s old, 2.0 MB" in found["good"].sentence and found["good"].weight.name == "FINE"
    assert "2 h old" in found["noted"].sentence and found["noted"].weight.name == "LIMITED"
    assert found["bad"].sentence == "bad is not backed up for 10 min: It is full." and found["bad"].advice


def test_all_is_read_once_an_hour_or_less_often_where_that_takes_long() -> None:
    assert Standing().is_full_due("file:///x", time.time(), 10)
    standing = Standing(store="file:///x", full_at=1000.0, full_seconds=30.0)
    assert not standing.is_full_due("file:///x", 4500.0, 10)
    assert standing.is_full_due("file:///x", 4700.0, 10)
    assert standing.is_full_due("file:///other", 1001.0, 10)
    assert standing.is_full_due("file:///x", 900.0, 10)  # the clock was set back
    slow = replace(standing, full_seconds=1000.0)
    assert not slow.is_full_due("file:///x", 10_900.0, 10)
    assert slow.is_full_due("file:///x", 11_100.0, 10)
    assert replace(standing, begin_anew=True).is_full_due("file:///x", 1001.0, 10)  # after one that failed
