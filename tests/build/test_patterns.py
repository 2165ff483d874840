from __future__ import annotations

import pytest

from lazycloud.build.patterns import matches


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("src/**", "src/a.js", True),
        ("src/**", "src/b/c.js", True),
        ("src/**", "srcs/a.js", False),
        ("src", "src/b/c.js", True),
        ("./src/", "src/b/c.js", True),
        ("*.json", "package.json", True),
        ("*.json", "sub/package.json", False),
        ("**/*.json", "package.json", True),
        ("**/*.json", "sub/deep/package.json", True),
        ("a?.js", "ab.js", True),
        ("a?.js", "a/.js", False),
        ("a+(b).js", "a+(b).js", True),
        ("src/*/x", "src/a/b/x", False),
        ("line*", "line\nbreak", True),
    ],
)
def test_a_pattern_means_files_as_people_expect(pattern: str, path: str, meant: bool) -> None:
    assert matches(pattern, path) is meant
