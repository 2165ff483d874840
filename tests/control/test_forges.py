"""What forges send, as they send it, and what others make of it."""

from __future__ import annotations

import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from multidict import CIMultiDict

from lazycloud.control.forges import Kind, Pull, is_proven, read
from lazycloud.errors import BadInput

SECRET, HEAD = "a secret", "c" * 40


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def heads(**headers: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("headers", "proven"),
    [
        ({"X_Hub_Signature_256": "sha256=" + signed(b"body")}, True),
        ({"X_Gitea_Signature": signed(b"body")}, True),
        ({"X_Forgejo_Signature": signed(b"body"), "X_Gitea_Signature": signed(b"body")}, True),
        ({"X_Gitlab_Token": SECRET}, True),
        ({"X_Hub_Signature_256": "sha256=" + signed(b"another")}, False),
        ({"X_Hub_Signature_256": "sha256=" + signed(b"body", "guess")}, False),
        ({"X_Hub_Signature_256": "", "X_Gitlab_Token": SECRET}, False),
        ({"X_Hub_Signature_256": "sha256=" + signed(b"body"), "X_Gitea_Signature": "0"}, False),
        ({"X_Hub_Signature": "sha1=0"}, False),
        ({"X_Gitlab_Token": "guess\udcff"}, False),
        ({"X_Gitlab_Token": ""}, False),
        ({}, False),
    ],
)
def test_a_proof_is_of_the_very_body_and_a_signature_that_is_there_has_to_be_right(
    headers: dict[str, str], proven: bool
) -> None:
    assert is_proven(heads(**headers), b"body", SECRET) is proven


def of_github(**changes: Any) -> dict[str, Any]:
    pull: dict[str, Any] = {
        "title": "Paint it\x1b[31m blue",
        "html_url": "https://forge.example/shop/pull/7",
        "user": {"login": "mallory"},
        "state": "open",
        "head": {"sha": HEAD, "repo": {"full_name": "mallory/shop"}},
        "base": {"repo": {"full_name": "ada/shop"}},
    }
    return {"action": "opened", "number": 7, "pull_request": pull | changes}


def of_gitlab(**changes: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "iid": 7,
        "title": "Paint it blue",
        "url": "https://forge.example/shop/-/merge_requests/7",
        "action": "open",
        "last_commit": {"id": HEAD},
        "source_project_id": 2,
        "target_project_id": 1,
    }
    return {"user": {"username": "mallory"}, "object_attributes": about | changes}


def pull_of(said: dict[str, Any], **headers: str) -> Pull:
    delivery = read(heads(**headers), json.dumps(said).encode())
    assert delivery.kind is Kind.PULL and delivery.pull
    return delivery.pull


GITHUB, GITLAB = {"X_GitHub_Event": "pull_request"}, {"X_Gitlab_Event": "Merge Request Hook"}


def test_a_pull_request_of_a_fork_is_told_from_one_of_the_repository_itself() -> None:
    pull = pull_of(of_github(), **GITHUB)
    assert (pull.number, pull.commit, pull.author, pull.is_fork) == (7, HEAD, "mallory", True)
    assert "\x1b" not in pull.title
    own = {"head": {"sha": HEAD, "repo": {"full_name": "ada/shop"}}}
    assert not pull_of(of_github(**own), **GITHUB).is_fork
    gone = {"head": {"sha": HEAD, "repo": None}}
    assert pull_of(of_github(**gone), **GITHUB).is_fork
    assert pull_of(of_gitlab(), **GITLAB).is_fork
    assert not pull_of(of_gitlab(source_project_id=1), **GITLAB).is_fork
    assert pull_of(of_gitlab(source_project_id=None, target_project_id=None), **GITLAB).is_fork


def test_a_closed_one_is_closed() -> None:
    assert pull_of({**of_github(), "action": "closed"}, **GITHUB).is_closed
    assert pull_of(of_gitlab(action="merge"), **GITLAB).is_closed
    assert not pull_of(of_gitlab(action="update"), **GITLAB).is_closed


@pytest.mark.parametrize(
    ("headers", "forge", "kind"),
    [
        ({"X_GitHub_Event": "ping"}, "GitHub", Kind.PING),
        ({"X_GitHub_Event": "push"}, "GitHub", Kind.PUSH),
        ({"X_GitHub_Event": "delete"}, "GitHub", Kind.PUSH),
        ({"X_GitHub_Event": "push", "X_Gitea_Event": "push"}, "Gitea", Kind.PUSH),
        (
            {"X_GitHub_Event": "push", "X_Gitea_Event": "push", "X_Forgejo_Event": "push"},
            "Forgejo",
            Kind.PUSH,
        ),
        ({"X_Gitlab_Event": "Tag Push Hook"}, "GitLab", Kind.PUSH),
        ({"X_GitHub_Event": "star"}, "GitHub", Kind.OTHER),
    ],
)
def test_each_forge_has_its_own_words(headers: dict[str, str], forge: str, kind: Kind) -> None:
    delivery = read(heads(**headers), b"{}")
    assert (delivery.forge, delivery.kind) == (forge, kind)


def test_githubs_form_holds_the_same_json() -> None:
    form = urlencode({"payload": json.dumps(of_github())}).encode()
    headers = heads(**GITHUB, Content_Type="application/x-www-form-urlencoded")
    delivery = read(headers, form)
    assert delivery.pull and delivery.pull.number == 7


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b"[" * 100_000,
        json.dumps(of_github(head={"sha": "--upload-pack=evil"})).encode(),
        json.dumps({**of_github(), "number": "7/../8"}).encode(),
        json.dumps({**of_github(), "number": -1}).encode(),
        json.dumps({"pull_request": "x"}).encode(),
    ],
)  # fmt: skip
def test_what_no_forge_sends_is_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        read(heads(**GITHUB), body)
    with pytest.raises(BadInput):
        read(heads(), b"{}")
