"""Markers under several hands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lazycloud.build.marker import read_marker, settle_marker, write_marker


def test_a_marker_may_be_settled_by_several_at_once(tmp_path: Path) -> None:
    marker = tmp_path / "release.json"
    write_marker(marker, {"key": "abc"})
    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(settle_marker, marker) for _ in range(100)]
    for each in done:
        each.result()
    assert (read_marker(marker) or {})["settled"]
    assert [path.name for path in tmp_path.iterdir()] == ["release.json"]
