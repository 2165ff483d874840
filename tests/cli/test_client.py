"""How a verb finds its server and its app, and how it fails."""

from __future__ import annotations

from pathlib import Path

from .conftest import CommandLine, app, git
from .server import ScriptedServer


async def test_without_a_server_the_sentence_names_the_home_and_how_to_start_one(lazycloud: CommandLine):
    done = await lazycloud("ls")
    assert done.status == 1
    assert done.err == (
        f"error: No lazycloud server runs for {lazycloud.home}.\n"
        "Start one with `lazycloud up`, or name its folder with --home.\n"
    )


async def test_options_are_accepted_before_and_after_the_verb(lazycloud: CommandLine, server: ScriptedServer):
    del lazycloud.environment["LAZYCLOUD_HOME"]
    before = await lazycloud("--home", str(server.home), "open")
    after = await lazycloud("open", "--home", str(server.home))
    assert before.out == after.out == "http://shop.localhost:8000/\n"


async def test_a_remote_server_is_asked_with_the_token(lazycloud: CommandLine, server: ScriptedServer):
    remote = ScriptedServer(server.home / "none")
    remote.answer("GET /api/apps", [app("blog", "https://example.com/blog.git")])
    port = await remote.start_tcp()
    try:
        by_flags = await lazycloud(
            "open", "--app", "blog", "--server", f"http://127.0.0.1:{port}", "--token", "secret"
        )
        lazycloud.environment |= {"LAZYCLOUD_SERVER": f"http://127.0.0.1:{port}", "LAZYCLOUD_TOKEN": "other"}
        by_environment = await lazycloud("open", "--app", "blog")
        beaten_by_a_flag = await lazycloud("open", "--home", str(server.home))
    finally:
        await remote.stop()
    assert by_flags.out == by_environment.out == "http://blog.localhost:8000/\n"
    assert beaten_by_a_flag.out == "http://shop.localhost:8000/\n"
    assert remote.tokens == ["Bearer secret", "Bearer other"]


async def test_a_server_that_is_gone_or_no_url_is_said(lazycloud: CommandLine):
    gone = await lazycloud("ls", "--server", "http://127.0.0.1:1")
    nonsense = await lazycloud("ls", "--server", "example.com")
    both = await lazycloud("ls", "--server", "http://127.0.0.1:1", "--home", "x")
    assert (gone.status, nonsense.status, both.status) == (1, 2, 2)
    assert "No lazycloud server answers at http://127.0.0.1:1." in gone.err
    assert "--server example.com is no URL." in nonsense.err


async def test_what_answers_but_is_not_lazycloud_is_told_apart(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.answer("GET /api/apps", "<h1>Bad gateway</h1>", status=502)
    done = await lazycloud("ls")
    assert done.status == 1
    assert "What answers there is not lazycloud: it said 502 Bad Gateway." in done.err


async def test_an_answer_that_is_no_json_is_an_error_without_a_traceback(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.answer("GET /api/apps", "hello")
    done = await lazycloud("ls")
    assert done.status == 1
    assert "Traceback" not in done.err
    assert "did not answer GET /api/apps in full" in done.err


async def test_errors_of_the_api_keep_sentence_advice_and_choices(
    lazycloud: CommandLine, server: ScriptedServer
):
    choices = [{"label": "3f2a9c1", "about": "Sell tea"}, {"label": "3f2a9c2", "about": "Sell mugs"}]
    server.refuse("POST /api/apps/shop/stop", 409, "“3f2a9c” names 2.", "Use more.", choices=choices)
    done = await lazycloud("stop", "3f2a9c")
    assert done.status == 1
    assert done.err == "error: “3f2a9c” names 2.\nUse more.\n  3f2a9c1  Sell tea\n  3f2a9c2  Sell mugs\n"


async def test_misuse_that_the_api_finds_exits_with_2(lazycloud: CommandLine, server: ScriptedServer):
    server.refuse("POST /api/apps/shop/stop", 422, "No.")
    assert (await lazycloud("stop", "x")).status == 2


async def test_an_unknown_verb_or_option_is_misuse(lazycloud: CommandLine):
    verb = await lazycloud("depoly")
    option = await lazycloud("ls", "--colour")
    assert (verb.status, option.status) == (2, 2)
    assert "There is no verb “depoly”. Did you mean `deploy`?" in verb.err
    assert "--colour" in option.err


async def test_a_group_of_verbs_alone_is_helped_and_a_missing_argument_has_an_example(lazycloud: CommandLine):
    group = await lazycloud("data")
    assert group.status in (0, 2)  # by click's version
    assert (group.out + group.err).startswith("Usage: lazycloud data")
    listed = (group.out + group.err).partition("Commands:\n")[2]
    assert "snapshots" in listed and "..." not in listed
    verb = await lazycloud("data", "restore")
    assert verb.status == 2 and verb.err.endswith("`lazycloud data restore --help` has an example.\n")


async def test_the_app_is_the_one_whose_repository_the_folder_is_in(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path
):
    server.answer("GET /api/apps", [app("blog", "/srv/blog"), app("shop", repository)])
    deep = repository / "a" / "b"
    deep.mkdir(parents=True)
    assert (await lazycloud("open", folder=deep)).out == "http://shop.localhost:8000/\n"


async def test_a_link_to_the_repository_is_the_repository(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path, tmp_path: Path
):
    (tmp_path / "link").symlink_to(repository)
    server.answer("GET /api/apps", [app("blog", "/srv/blog"), app("shop", tmp_path / "link")])
    assert (await lazycloud("open")).out == "http://shop.localhost:8000/\n"


async def test_a_linked_work_tree_counts_as_its_main_repository(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path, tmp_path: Path
):
    server.answer("GET /api/apps", [app("blog", "/srv/blog"), app("shop", repository)])
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "tree"), "-b", "other")
    assert (await lazycloud("open", folder=tmp_path / "tree")).out == "http://shop.localhost:8000/\n"


async def test_a_clone_counts_as_the_repository_it_came_from(
    lazycloud: CommandLine, server: ScriptedServer, repository: Path
):
    url = "https://example.com/blog.git"
    server.answer("GET /api/apps", [app("blog", url), app("wiki", "/srv/wiki")])
    git(repository, "remote", "add", "origin", "https://example.com/blog")
    assert (await lazycloud("open")).out == "http://blog.localhost:8000/\n"


async def test_elsewhere_it_is_the_only_app_or_a_choice(
    lazycloud: CommandLine, server: ScriptedServer, tmp_path: Path
):
    only = await lazycloud("open", folder=tmp_path)
    server.answer("GET /api/apps", [app("blog", "/srv/blog"), app("wiki", "/srv/wiki")])
    several = await lazycloud("open", folder=tmp_path)
    named = await lazycloud("--app", "wiki", "open", folder=tmp_path)
    unknown = await lazycloud("open", "--app", "wikki", folder=tmp_path)
    assert only.out == "http://shop.localhost:8000/\n"
    assert several.status == 2
    assert "none of blog, wiki" in several.err
    assert named.out == "http://wiki.localhost:8000/\n"
    assert unknown.status == 1
    assert "There is no app “wikki”.\nDid you mean wiki?" in unknown.err


async def test_in_another_repository_nothing_is_done_to_the_only_app_by_mistake(
    lazycloud: CommandLine, server: ScriptedServer
):
    server.answer("GET /api/apps", [app("wiki", "/srv/wiki")])
    server.answer("POST /api/apps/wiki/stop", {"stopped": True, "deployment": "d"})
    mistaken = await lazycloud("stop", "HEAD")
    assert mistaken.status == 2
    assert "This folder belongs to none of wiki.\nName one with --app." in mistaken.err
    await lazycloud("stop", "HEAD", "--app", "wiki")
    assert server.asked("POST /api/apps/wiki/stop") == [{"ref": "HEAD"}]


async def test_every_verb_has_help_with_an_example(lazycloud: CommandLine):
    from lazycloud.cli import VERBS

    verbs = [[verb] for verb in VERBS] + [["hook", "install"], ["hook", "uninstall"], []]
    for verb in verbs:
        done = await lazycloud(*verb, "--help")
        assert done.status == 0
        assert "Example:" in done.out, verb


async def test_the_command_line_starts_without_rich_and_without_the_server(lazycloud: CommandLine):
    code = "import sys, lazycloud.cli; print(sorted({'rich', 'aiohttp', 'sqlalchemy'} & sys.modules.keys()))"
    import sys

    assert (await lazycloud.run(sys.executable, "-c", code)).out == "[]\n"
