"""Certificate files are read, or it is said what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lazycloud.certificates import Files, complaints, read
from lazycloud.errors import BadInput

from .certificates import NOW, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(cert: Path, key: Path) -> Files:
    return Files(str(cert), str(key))


def test_a_certificate_has_names_and_times(authority: Authority) -> None:
    found = read(files(*authority.issue("Example.com", "*.example.com")))
    assert found.names == ("example.com", "*.example.com")
    assert found.begins < datetime.now(UTC) < found.ends
    assert found.complaint(datetime.now(UTC)) == ""


def test_one_file_may_hold_the_chain_and_the_key(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("example.com")
    whole = tmp_path / "whole.pem"
    whole.write_bytes(cert.read_bytes() + authority.file.read_bytes() + key.read_bytes())
    assert read(files(whole, whole)).names == ("example.com",)


def test_a_certificate_out_of_its_time_is_complained_about_and_used(authority: Authority) -> None:
    day = timedelta(days=1)
    past = files(*authority.issue("a.com", begins=NOW - 3 * day, ends=NOW - day))
    future = files(*authority.issue("b.com", begins=NOW + day))
    good = files(*authority.issue("c.com"))
    said = complaints([past, good, future])
    assert len(said) == 2
    assert said[0] == f"The certificate {past.cert} expired on {NOW - day:%d %B %Y}."
    assert said[1].startswith(f"The certificate {future.cert} is not valid before ")


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("a.com")
    with pytest.raises(BadInput, match=r"gone.pem cannot be read: No such file or directory\."):
        read(files(tmp_path / "gone.pem", key))
    with pytest.raises(BadInput, match=r"gone.key cannot be read: No such file or directory\."):
        read(files(cert, tmp_path / "gone.key"))
    with pytest.raises(BadInput, match=r"cannot be read: Is a directory\."):
        read(files(cert, tmp_path))


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    cert, _ = authority.issue("a.com")
    _, other = authority.issue("a.com")
    with pytest.raises(BadInput, match=r"1\.key is not that of the certificate .*0\.crt"):
        read(files(cert, other))


def test_a_certificate_behind_its_chain_is_refused_with_the_reason(authority: Authority) -> None:
    cert, key = authority.issue("a.com")
    cert.write_bytes(authority.file.read_bytes() + cert.read_bytes())
    with pytest.raises(BadInput, match="begins with the server's own certificate"):
        read(files(cert, key))


def test_an_encrypted_key_is_refused_with_how_to_write_it_plain(authority: Authority) -> None:
    with pytest.raises(BadInput, match=r"is encrypted.*openssl pkey -in KEY -out PLAIN"):
        read(files(*authority.issue("a.com", password=b"secret")))


def test_a_file_without_its_part_is_refused(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("a.com")
    with pytest.raises(BadInput, match=r"There is no certificate in .*\.key"):
        read(files(key, key))
    with pytest.raises(BadInput, match=r"There is no private key in .*\.crt.*--tls-key"):
        read(files(cert, cert))
    binary = tmp_path / "a.der"
    binary.write_bytes(b"\x30\x82\x01\x0a")
    with pytest.raises(BadInput, match=r"It must be a PEM file"):
        read(files(binary, key))
    key.write_text("-----BEGIN PRIVATE KEY-----\nbm9uc2Vuc2U=\n-----END PRIVATE KEY-----\n")
    with pytest.raises(BadInput, match="cannot be used for TLS"):
        read(files(cert, key))
