"""What a Dockerfile may copy."""

from __future__ import annotations

from pathlib import Path

from lazycloud.build.images import context


def test_all_files_go_along_but_those_that_dockerignore_names(tmp_path: Path) -> None:
    for name in (
        "app.py",
        "Dockerfile",
        "docs/a.md",
        "docs/keep.md",
        "src/x.log",
        "src/y.py",
        "node_modules/z/i.js",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "src/link").symlink_to("../docs")
    everything = context(tmp_path, "Dockerfile")
    assert len(everything) == 8 and "src/link" in everything
    ignore = (
        "# what is not needed\n\n/docs\n!docs/keep.md\n**/*.log\nnode_modules/\nDockerfile\n.dockerignore\n"
    )
    (tmp_path / ".dockerignore").write_text(ignore)
    assert context(tmp_path, "Dockerfile") == ["Dockerfile", "app.py", "docs/keep.md", "src/link", "src/y.py"]
