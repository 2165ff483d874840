"""Host header -> app and label."""

import pytest

from lazycloud.hosts import Addresses, Kind, Place, app_name, find, flat_limit, is_app_name, normalise, slug

APPS = {"shop": "example.com", "blog": "blog.example.com", "wiki": "wiki.org"}
SHA = "3f2a9c1d0b" + "0" * 30


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("example.com", Place(Kind.PRODUCTION, "shop")),
        ("blog.example.com", Place(Kind.PRODUCTION, "blog")),
        ("shop.example.com", Place(Kind.PRODUCTION, "shop")),
        ("wiki.org", Place(Kind.PRODUCTION, "wiki")),
        ("wiki.example.com", Place(Kind.PRODUCTION, "wiki")),
        ("lazycloud.example.com", Place(Kind.CONTROL)),
        ("lazycloud.wiki.org", Place(Kind.CONTROL)),
        (f"{SHA}.example.com", Place(Kind.LABEL, "shop", SHA)),
        ("3f2a9c1.blog.example.com", Place(Kind.LABEL, "blog", "3f2a9c1")),
        ("3f2a9c1--blog.example.com", Place(Kind.LABEL, "blog", "3f2a9c1")),
        ("feature-x--wiki.example.com", Place(Kind.LABEL, "wiki", "feature-x")),
        ("feature-x.wiki.org", Place(Kind.LABEL, "wiki", "feature-x")),
        ("a" * 64 + ".example.com", Place(Kind.LABEL, "shop", "a" * 64)),
        ("g" * 64 + ".example.com", Place(Kind.INVALID, "shop", "g" * 64)),
        ("a_b.example.com", Place(Kind.INVALID, "shop", "a_b")),
        ("-a.example.com", Place(Kind.INVALID, "shop", "-a")),
        ("x.y.blog.example.com", Place(Kind.INVALID, "blog", "x.y")),
        ("x.y--blog.example.com", Place(Kind.INVALID, "shop", "x.y--blog")),
        ("3f2a9c1--nobody.example.com", Place(Kind.LABEL, "shop", "3f2a9c1--nobody")),
        ("example.org", Place(Kind.UNKNOWN)),
        ("badexample.com", Place(Kind.UNKNOWN)),
        ("", Place(Kind.UNKNOWN)),
    ],
)
def test_a_host_stands_for_one_place(host: str, place: Place) -> None:
    assert find(host, "example.com", APPS) == place


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("Example.COM:8000", "example.com"),
        ("example.com.", "example.com"),
        ("[::1]:8000", "[::1]"),
        ("example.com:", "example.com"),
        ("a b", ""),
        ("user@example.com", ""),
        ("example.com:80:80", ""),
        ("", ""),
    ],
)
def test_port_case_and_trailing_dot_do_not_matter(header: str, host: str) -> None:
    assert normalise(header) == host


def test_a_slug_is_a_dns_label_whatever_the_branch_is_called() -> None:
    assert slug("feature/Add_Login!") == "feature-add-login"
    assert slug("日本語").startswith("ref-")
    long = slug("x" * 100)
    assert len(long) == 63
    assert long != slug("x" * 101)
    assert "--" not in slug("a--b")


def test_a_slug_cut_for_the_flat_form_leaves_room_for_the_app() -> None:
    label = slug("x" * 100, flat_limit("guestbook"))
    assert len(f"{label}--guestbook") == 63


def test_an_app_is_named_after_its_folder() -> None:
    assert app_name("My Shop.git") == "my-shop-git"
    assert app_name("lazycloud") == "app"
    assert app_name("---") == "app"
    assert is_app_name("my-shop")
    assert not is_app_name("my--shop")
    assert not is_app_name("lazycloud")


def test_addresses_name_the_port_only_when_it_is_unusual() -> None:
    assert (
        Addresses("http", "localhost", 8000).label("localhost", "3f2a9c1") == "http://3f2a9c1.localhost:8000/"
    )
    assert Addresses("https", "example.com").control() == "https://lazycloud.example.com/"
