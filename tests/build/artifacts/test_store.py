from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path

import pytest

from lazycloud.blobs.folder_store import FolderStore
from lazycloud.blobs.store import Missing, StoreFailed, open_store, parse_store
from lazycloud.errors import BadInput

NAME = "environments/0123456789abcdef"


def got(store: FolderStore, name: str = NAME) -> bytes:
    file = io.BytesIO()
    store.get(name, file)
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore(tmp_path / "store")


def test_what_is_put_is_there_until_it_is_deleted(store: FolderStore) -> None:
    assert not store.exists(NAME)
    with pytest.raises(Missing, match=f"has no {NAME}"):
        got(store)
    store.put(NAME, io.BytesIO(b"one"))
    store.put(NAME, io.BytesIO(b"other"))
    assert (store.exists(NAME), got(store)) == (True, b"other")
    (found,) = store.list()
    assert (found.name, found.size) == (NAME, 5)
    store.delete(NAME)
    store.delete(NAME)
    assert list(store.list()) == []


def test_a_reader_sees_whole_files_only_while_many_put_the_same(store: FolderStore) -> None:
    contents = [bytes([number]) * 2_000_000 for number in range(6)]
    store.put(NAME, io.BytesIO(contents[0]))
    writers = [threading.Thread(target=store.put, args=(NAME, io.BytesIO(content))) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert got(store) in contents
    assert got(store) in contents


def test_what_cannot_be_read_to_its_end_is_not_put_and_what_a_killed_writer_left_is_cleared(
    store: FolderStore, tmp_path: Path
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StoreFailed, match="cannot be used: input/output error"):
        store.put(NAME, Broken())
    folder = tmp_path / "store/environments"
    assert list(folder.iterdir()) == []
    (folder / ".putting-1").touch()
    (folder / ".putting-2").touch()
    os.utime(folder / ".putting-1", (time.time() - 100_000,) * 2)
    store.put(NAME, io.BytesIO(b"x"))
    assert sorted(path.name for path in folder.iterdir()) == [".putting-2", "0123456789abcdef.lazyart"]


def test_a_store_whose_disk_is_not_there_says_so_and_is_not_made(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "absent")
    for use in (lambda: store.exists(NAME), lambda: got(store), lambda: list(store.list())):
        with pytest.raises(StoreFailed, match="is not there") as caught:
            use()
        assert "mkdir -p" in caught.value.advice
    with pytest.raises(StoreFailed, match="is not there"):
        store.put(NAME, io.BytesIO(b"x"))
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    store = FolderStore(small_disk)
    with pytest.raises(StoreFailed, match="is full"):
        store.put(NAME, io.BytesIO(os.urandom(2 << 20)))
    assert list((small_disk / "environments").iterdir()) == []


def test_names_cannot_lead_out_of_the_store(store: FolderStore) -> None:
    for name in ("../x", "environments/../../x", "/etc/passwd", "environments/", "x"):
        with pytest.raises(StoreFailed, match="is no name in the artifact store"):
            store.exists(name)


def test_a_url_that_no_store_understands_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    for url in ("s3://bucket", "/srv/artifacts", "", "https://x/y"):
        with pytest.raises(BadInput, match="no store that lazycloud knows") as caught:
            parse_store(url)
        assert "file:///" in caught.value.advice
    for url in ("file://srv/artifacts", "file:artifacts", "file:///x?y"):
        with pytest.raises(BadInput, match="names no folder of this machine"):
            parse_store(url)
    (tmp_path / "a b").mkdir()
    assert not open_store(parse_store(f"file://{tmp_path}/a%20b")).exists(NAME)
