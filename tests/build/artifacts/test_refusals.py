from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazycloud.build.artifacts.manifest import FILE, FOLDER, LINK, ArtifactRefused, Entry
from lazycloud.errors import BadInput

from .home import KEY, Home, forged, manifest_of

HASH = hashlib.sha256().hexdigest()  # of nothing: no entry below is refused for its content


@pytest.fixture
def there(tmp_path: Path) -> Home:
    return Home(tmp_path / "there").make(
        {"app.py": "print(1)", "lib/a.txt": "a" * 5000, "b.bin": os.urandom(4000)}
    )


@pytest.fixture
def here(tmp_path: Path) -> Home:
    return Home(tmp_path / "here")


def test_a_byte_that_was_changed_anywhere_is_noticed_and_leaves_nothing(there: Home, here: Home) -> None:
    packed = there.pack()
    head = range(112)  # magic, key, signature, length, and the begin of the manifest
    rest = range(112, len(packed), 37)
    for at in (*head, *rest, len(packed) - 1):
        changed = bytearray(packed)
        changed[at] ^= 1 << at % 8
        with pytest.raises(ArtifactRefused):
            here.take(bytes(changed), there.key)
        assert here.left() == []
    here.take(packed, there.key)


def test_a_file_that_is_cut_short_anywhere_or_goes_on_is_refused(there: Home, here: Home) -> None:
    packed = there.pack()
    for length in (*range(0, 120, 7), *range(120, len(packed), 211), len(packed) - 1):
        with pytest.raises(ArtifactRefused, match="cut short"):
            here.take(packed[:length], there.key)
    with pytest.raises(ArtifactRefused, match="longer than it was when it was signed"):
        here.take(packed + b"\0", there.key)
    assert here.left() == []


def test_a_signature_of_somebody_else_does_not_count(there: Home, here: Home) -> None:
    with pytest.raises(
        ArtifactRefused, match=r"signed by ed25519:\S+, whom this server does not trust"
    ) as caught:
        here.take(there.pack())
    assert "[artifacts] trusted" in caught.value.advice
    theirs = bytearray(there.pack())
    theirs[8:40] = here.key.public  # as if we had signed
    with pytest.raises(ArtifactRefused, match="signature is wrong"):
        here.take(bytes(theirs))
    assert here.left() == []


def test_an_artifact_is_not_taken_for_another_or_on_another_platform(there: Home, here: Home) -> None:
    packed = there.pack()
    for change, why in (
        ({"key": "f" * 32}, f"It is environment {KEY}, which was not asked for"),
        ({"kind": "release"}, "which was not asked for"),
        ({"platform": "Linux aarch64"}, "made on Linux, and this machine is Linux aarch64"),
        ({"marker": "release.json"}, "made in another way"),
    ):
        with pytest.raises(ArtifactRefused, match=why):
            here.take(packed, there.key, subject=replace(here.subject, **change))
    assert here.left() == []


ENTRIES: list[list[Entry]] = [
    [Entry("../out", FILE, sha256=HASH)],
    [Entry("/out", FILE, sha256=HASH)],
    [Entry("a/../../out", FILE, sha256=HASH)],
    [Entry("a//b", FILE, sha256=HASH)],
    [Entry("./a", FILE, sha256=HASH)],
    [Entry("", FOLDER)],
    [Entry("nul\0", FILE, sha256=HASH)],
    [Entry("a" * 256, FOLDER)],
    [Entry("complete.json", FILE, sha256=HASH)],
    [Entry("no/folder", FILE, sha256=HASH)],
    [Entry("a", FOLDER), Entry("a", FOLDER)],
    [Entry("a", FOLDER), Entry("a", LINK, target="b")],
    [Entry("a", LINK, target="b"), Entry("a/passwd", FILE, sha256=HASH)],
    [Entry("a", LINK, target="/etc")],
    [Entry("a", LINK, target="../../..")],
    [Entry("a", LINK, target="..")],
    [Entry("a", LINK, target="")],
    [Entry("a", LINK, target="environments/x", relocate=True)],
    [Entry("a", LINK, target=f"environments/{KEY}/../../x", relocate=True)],
    [
        Entry("d", FOLDER),
        Entry("d/e", FOLDER),
        Entry("l", LINK, target="d/e"),
        Entry("m", LINK, target="l/../../x"),
    ],
    [
        *(Entry(path, FOLDER) for path in ("d", "d/e", "d/e/f")),
        Entry("d/e/f/up", LINK, target="../../.."),  # the folder itself
        Entry("m", LINK, target="d/e/f/up/../x"),  # which, as it is written, stays inside
    ],
    [Entry("a", "device")],
    [Entry("a", "hardlink", target="b")],
    [Entry("a", "interpreter")],
    [Entry("a", FILE, mode=0o4755, sha256=HASH)],
    [Entry("a", FILE, mode=-1, sha256=HASH)],
    [Entry("a", FILE, size=-5, sha256=HASH)],
    [Entry("a", FILE, sha256="x")],
    [Entry("a", FOLDER, size=9)],
]
"""What the signature of somebody trusted must not make true: a way out of the folder, and what is none of ours."""


@pytest.mark.parametrize("entries", ENTRIES, ids=[repr(entries[-1].path)[:20] for entries in ENTRIES])
def test_no_signature_makes_a_path_lead_out_of_the_folder(
    there: Home, here: Home, tmp_path: Path, entries: list[Entry]
) -> None:
    kept = manifest_of(there.pack()).entries
    before = sorted(tmp_path.rglob("*"))
    for made in ((*kept, *entries), (*entries, *kept)):
        with pytest.raises(ArtifactRefused):
            here.take(forged(there.pack(), there.key, entries=made), there.key)
        (here.scratch / "file").unlink()
        here.root.mkdir(parents=True, exist_ok=True)
        assert here.left() in ([], ["environments"])
    assert [
        path for path in sorted(tmp_path.rglob("*")) if path not in before and here.root not in path.parents
    ] == [here.root.parent, here.root]


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../x"},
        {"kind": "secret"},
        {"folder": "../x"},
        {"root": "relative"},
        {"marker_name": "../x"},
        {"marker_name": None},
        {"marker": []},
        {"needs": {"x": "y"}},
        {"needs": {KEY: "../x"}},
        {"needs": 5},
        {"body": {"size": 1}},
        {"entries": [{"path": "x"}]},
        {"entries": [{"path": ["x"], "type": FILE}]},
        {"entries": None},
        {"format": 2},
    ],
    ids=str,
)
def test_a_manifest_that_breaks_a_rule_is_refused_whoever_signed_it(
    there: Home, here: Home, changes: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactRefused):
        here.take(forged(there.pack(), there.key, **changes), there.key)
    assert here.left() == []


def test_content_that_is_not_what_the_manifest_says_is_refused(there: Home, here: Home) -> None:
    packed = there.pack()
    manifest = manifest_of(packed)
    first, *others = manifest.entries
    assert first.type == FILE
    body, short = manifest.body, replace(first, size=first.size - 1)
    for entries, content, why in (
        ([replace(first, sha256=HASH), *others], body.content, "is not what the manifest says"),
        ([short, *others], body.content - 1, "is not what the manifest says"),
        ([first, *others], 1 << 49, "may be followed: body"),
        ([first], first.size, "holds more than its manifest says"),
        ([first, *others, replace(first, path="more")], body.content + first.size, "is cut short"),
    ):
        changed = replace(body, content=content)
        with pytest.raises(ArtifactRefused, match=why):
            here.take(forged(packed, there.key, entries=tuple(entries), body=changed), there.key)
        assert here.left() in ([], ["environments"])


def test_more_content_than_the_disk_has_is_refused_before_anything_is_written(
    there: Home, here: Home
) -> None:
    packed = there.pack()
    manifest = manifest_of(packed)
    huge = Entry("huge", FILE, size=1 << 49, sha256=HASH)
    body = replace(manifest.body, content=manifest.body.content + huge.size)
    with pytest.raises(ArtifactRefused, match=r"and the disk of .* has"):
        here.take(forged(packed, there.key, entries=(*manifest.entries, huge), body=body), there.key)
    assert here.left() == ["environments"]


def test_what_a_key_file_holds_is_a_key_or_said_to_be_none(tmp_path: Path) -> None:
    from lazycloud.blobs.keys import SigningKey, parse_public, public_text

    key = SigningKey.of(tmp_path / "home/key")
    assert SigningKey.of(tmp_path / "home/key").public == key.public
    assert (tmp_path / "home/key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["key"]
    assert parse_public(public_text(key.public)) == key.public
    for text in ("", "ed25519:", "ed25519:AAAA", public_text(key.public)[8:], "ed25519:" + "?" * 44):
        with pytest.raises(BadInput, match="is no public key"):
            parse_public(text)
    (tmp_path / "home/key").write_text("nonsense")
    with pytest.raises(BadInput, match="holds no signing key"):
        SigningKey.of(tmp_path / "home/key")
