"""The benchmarks run as their command does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.tools import needs

ROOT = Path(__file__).parent.parent
PAGE = "# Figures\n<!-- figure keepalive -->\nold\n<!-- end keepalive -->\nbelow\n"


def bench(*arguments: str | Path, command: str = "router") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / f"bench/{command}.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )


@needs("nginx", "wrk")
@pytest.mark.slow
def test_a_figure_is_measured_shown_and_written_down(tmp_path: Path) -> None:
    page, values = tmp_path / "page.md", tmp_path / "values.json"
    page.write_text(PAGE)
    options = ("--seconds", "0.5", "--rounds", "1", "--case", "same, 32")
    done = bench("--figure", "keepalive", "--peers", "blind", *options, "--json", values, "--markdown", page)
    assert done.returncode == 0, done.stderr
    assert "lazycloud" in done.stdout and "blind" in done.stdout
    rows = json.loads(values.read_text())["figures"]["keepalive"]["rows"]
    assert [(row["peer"], row["trouble"]) for row in rows] == [("lazycloud", ""), ("blind", "")]
    assert all(1e-6 < row["values"]["cpu"] < 1 for row in rows)
    assert "| same, 32 conn. | blind |" in page.read_text() and "old" not in page.read_text()
    assert page.read_text().endswith("below\n")


def test_a_figure_or_a_peer_that_does_not_exist_is_named() -> None:
    assert "“speed”" in bench("speed").stderr
    assert "“apache”" in bench("keepalive", "--peers", "apache").stderr


@pytest.mark.slow
def test_a_deploy_is_measured_beside_a_start_by_hand(tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    done = bench("deploys", "--case", "static", "--rounds", "1", "--json", values, command="deploy")
    assert done.returncode == 0, done.stderr
    assert "static files" in done.stdout and "by hand" in done.stdout
    figure = json.loads(values.read_text())["figures"]["deploys"]
    took = {row["peer"]: row["values"]["seconds"] for row in figure["rows"]}
    assert len(took) == 4 and all(0.01 < seconds < 240 for seconds in took.values())
    ours = next(seconds for way, seconds in took.items() if way != "by hand")
    (target,) = figure["targets"]
    assert target["value"] == pytest.approx(ours / took["by hand"])


@pytest.mark.slow
def test_an_image_is_measured_beside_a_copy(tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    options = ("--rounds", "1", "--sizes", "2", "3", "--folder", tmp_path, "--json", values, "--disk")
    done = bench("marks", "proofs", "images", *options, command="data")
    assert done.returncode == 0, done.stderr
    figures = json.loads(values.read_text())["figures"]
    for name, ways in {"marks": 5, "proofs": 6}.items():
        assert len(figures[name]["rows"]) == ways
        assert all(0 < row["values"]["seconds"] < 1 for row in figures[name]["rows"])
    rows = figures["images"]["rows"]
    assert len({row["case"] for row in rows}) == 2
    took = {row["peer"]: row["values"] for row in rows if row["case"].startswith("3 MB")}
    assert {"lazycloud", "cp", "VACUUM INTO"} <= set(took)
    assert took["lazycloud"]["x cp"] == pytest.approx(took["lazycloud"]["seconds"] / took["cp"]["seconds"])
    assert not list(tmp_path.glob("bench-*"))


@pytest.mark.slow
def test_a_fork_in_postgres_is_measured_beside_a_copy_by_hand(postgres: Postgres, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    options = ("--rounds", "1", "--sizes", "1", "--url", postgres.url(), "--json", values)
    done = bench("postgres", *options, command="data_postgres")
    assert done.returncode == 0, done.stderr
    rows = json.loads(values.read_text())["figures"]["postgres"]["rows"]
    took = {row["peer"]: row["values"]["seconds"] for row in rows}
    assert set(took) == {"lazycloud", "lazycloud, no spare", "pg_dump to psql"} and min(took.values()) > 0
    assert not [name for name in postgres.databases() if name.startswith(("lazycloud_", "bench_"))]


@pytest.mark.parametrize(
    ("command", "count"), [("router", 7), ("deploy", 6), ("data", 5), ("data_postgres", 2)]
)
def test_the_page_has_a_place_for_each_figure(command: str, count: int) -> None:
    names = bench("?", command=command).stderr.rpartition("there are ")[2].split(", ")
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert len(names) == count
    for name in map(str.strip, names):
        assert page.count(f"<!-- figure {name} -->") == page.count(f"<!-- end {name} -->") == 1


def test_no_two_figures_have_one_place() -> None:
    names = [
        name.strip()
        for command in ("router", "deploy", "data", "data_postgres")
        for name in bench("?", command=command).stderr.rpartition("there are ")[2].split(", ")
    ]
    assert sorted(names) == sorted(set(names)) and "source" not in names


@pytest.mark.slow
def test_documents_are_measured_beside_tables(postgres: Postgres, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    few = ("--rounds", "1", "--documents", "2000", "--sizes", "100", "--versions", "20")
    done = bench(*few, "--folder", tmp_path, "--url", postgres.url(), "--json", values, command="versionbase")
    assert done.returncode == 0, done.stderr
    figures = json.loads(values.read_text())["figures"]
    took = {(row["case"], row["peer"]): row["values"] for row in figures["documents"]["rows"]}
    assert len(took) == 18 and all(0 < each["seconds"] < 1 for each in took.values())
    ours, theirs = took["get", "lazycloud"], took["get", "SQLite, JSON"]
    assert ours["x SQLite, JSON"] == pytest.approx(ours["seconds"] / theirs["seconds"])
    assert all(100 < row["values"]["bytes"] < 100_000 for row in figures["written"]["rows"])
    assert {row["peer"] for row in figures["forks"]["rows"]} == {"fork", "snapshot", "a row in SQLite"}
    assert len(figures["differences"]["rows"]) == len(figures["versions"]["rows"]) == 2
    assert not list(tmp_path.glob("bench-*"))
