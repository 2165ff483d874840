from __future__ import annotations

import json
import sys

import pytest

from lazycloud.build.plan import Plan, make_plan
from lazycloud.build.runtimes.node import NodeDependencies
from lazycloud.build.runtimes.requirements import PythonDependencies, is_pinned, python_dependencies
from lazycloud.build.tree import Tree
from lazycloud.errors import BadInput, StepFailed

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FASTAPI = "import fastapi\napi: fastapi.FastAPI = fastapi.FastAPI()\n"
MANAGE = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings.dev')"


def tree(files: dict[str, str]) -> Tree:
    return Tree(files, lambda path: files[path].encode() if path in files else None)


def plan_of(files: dict[str, str]) -> Plan:
    return make_plan(tree(files))


def package(**fields: object) -> str:
    return json.dumps(fields)


def test_lazycloud_toml_has_the_first_word_then_the_procfile_then_the_files() -> None:
    files = {"lazycloud.toml": '[run]\ncommand = "a"', "Procfile": "web: b\nrelease: c", "app.py": FLASK}
    assert plan_of(files).run == "a"
    assert plan_of(files).release == "c"
    del files["lazycloud.toml"]
    assert plan_of(files).run == "b"
    del files["Procfile"]
    assert "flask" in plan_of(files).run


def test_settings_reach_the_plan() -> None:
    text = """
        on_commit = "build"
        [build]
        command = "make"
        timeout = 1
        [run]
        command = "serve"
        release = "migrate"
        after = "warm"
        health = "/h"
        ready_timeout = 2
        release_timeout = 3
        stop_timeout = 4
        [data]
        from = "parent"
        [env]
        A = "b"
    """
    made = plan_of({"lazycloud.toml": text})
    assert (made.runtime, made.run, made.build, made.release, made.after) == (
        "command",
        "serve",
        "make",
        "migrate",
        "warm",
    )
    assert (made.build_timeout, made.ready_timeout, made.release_timeout, made.stop_timeout) == (1, 2, 3, 4)
    assert (made.health, made.data_from, made.on_commit, made.env) == ("/h", "parent", "build", {"A": "b"})


@pytest.mark.parametrize(
    ("files", "run"),
    [
        ({"app.py": FLASK}, "python -m flask --app app:app run --host $HOST --port $PORT"),
        ({"app.py": FLASK, "requirements.txt": "gunicorn"}, "python -m gunicorn --bind $HOST:$PORT app:app"),
        (
            {"app.py": FLASK, "requirements.txt": "waitress"},
            "python -m waitress --host=$HOST --port=$PORT app:app",
        ),
        (
            {
                "shop/__init__.py": "import flask as f\ndef create_app():\n    app = f.Flask('x')\n    return app\n"
            },
            "python -m flask --app shop:create_app run --host $HOST --port $PORT",
        ),
        (
            {
                "shop/__init__.py": "from flask import Flask\ndef create_app():\n    return Flask('x')\n",
                "requirements.txt": "flask\ngunicorn==23.0",
            },
            "python -m gunicorn --bind $HOST:$PORT 'shop:create_app()'",
        ),
        (
            {"wsgi.py": "from shop import app as application", "requirements.txt": "Flask>3\ngunicorn"},
            "python -m gunicorn --bind $HOST:$PORT wsgi:application",
        ),
        (
            {"wsgi.py": "from shop import app", "requirements.txt": "Flask>3\ngunicorn"},
            "python -m gunicorn --bind $HOST:$PORT wsgi:app",
        ),
        (
            {"main.py": "from shop import create_app\nweb = create_app()", "requirements.txt": "flask"},
            "python -m flask --app main:web run --host $HOST --port $PORT",
        ),
        (
            {"main.py": FASTAPI, "requirements.txt": "uvicorn"},
            "python -m uvicorn --host $HOST --port $PORT main:api",
        ),
        (
            {"app/main.py": FASTAPI, "requirements.txt": "fastapi[standard]>=0.1 # web"},
            "python -m uvicorn --host $HOST --port $PORT app.main:api",
        ),
        (
            {"src/shop/app.py": FASTAPI, "requirements.txt": "hypercorn"},
            "python -m hypercorn --bind $HOST:$PORT shop.app:api",
        ),
        ({"main.py": FASTAPI + "if __name__ == '__main__': serve(environ['PORT'])"}, "python main.py"),
        ({"manage.py": MANAGE}, "python manage.py runserver --noreload $HOST:$PORT"),
        (
            {"manage.py": MANAGE, "shop/wsgi.py": "", "requirements.txt": "gunicorn"},
            "python -m gunicorn --bind $HOST:$PORT shop.wsgi",
        ),
        ({"main.py": "import http.server; PORT"}, "python main.py"),
        (
            {"package.json": package(scripts={"start": "node --enable-source-maps server.js"})},
            "node --enable-source-maps server.js",
        ),
        ({"package.json": package(scripts={"start": "node a.js && true"})}, "npm start"),
        ({"package.json": package(scripts={"start": "node a.js", "prestart": "x"})}, "npm start"),
        ({"package.json": package(main="./lib/web.js"), "lib/web.js": ""}, "node lib/web.js"),
        (
            {"package.json": package(main="$(touch x).js"), "$(touch x).js": "", "index.js": ""},
            "node index.js",
        ),
        ({"index.html": ""}, f"{sys.executable} -I -m lazycloud.workers.static ."),
        ({"public/index.html": ""}, f"{sys.executable} -I -m lazycloud.workers.static public"),
        (
            {"lazycloud.toml": '[run]\nroot = "my site"'},
            f"{sys.executable} -I -m lazycloud.workers.static 'my site'",
        ),
    ],
)
def test_the_way_to_run_is_found_in_the_files(files: dict[str, str], run: str) -> None:
    assert plan_of(files).settled(lambda root: True).run == run


def test_what_was_found_is_said() -> None:
    made = plan_of({"app.py": FLASK, "requirements.txt": "flask"})
    assert made.found == (
        "Found app.py with the Flask application `app`: "
        "runs `python -m flask --app app:app run --host $HOST --port $PORT`.",
        "Python packages come from requirements.txt.",
    )


def test_nothing_in_the_files_is_run_or_imported(capsys: pytest.CaptureFixture[str]) -> None:
    plan_of({"app.py": f"print('run')\n{FLASK}", "main.py": "raise SystemExit"})
    assert capsys.readouterr().out == ""


def test_source_that_does_not_parse_is_a_plain_script() -> None:
    assert plan_of({"app.py": "from flask import ("}).run == "python app.py"
    assert plan_of({"app.py": "(" * 5000}).run == "python app.py"


def test_a_script_that_does_not_mention_port_is_warned_of() -> None:
    assert any("does not mention PORT" in line for line in plan_of({"app.py": "x"}).found)
    assert not any("does not mention PORT" in line for line in plan_of({"app.py": "PORT"}).found)


def test_an_asgi_application_without_a_server_says_what_to_add() -> None:
    with pytest.raises(StepFailed, match="no server for it is among the dependencies") as caught:
        plan_of({"main.py": FASTAPI, "requirements.txt": "fastapi"})
    assert "Add uvicorn" in caught.value.advice


def test_no_way_says_what_was_looked_for_and_shows_a_lazycloud_toml() -> None:
    with pytest.raises(StepFailed, match="Looked for") as caught:
        plan_of({"README.md": "", "Procfile": "worker: x"})
    assert "The Procfile has worker, but no web." in caught.value.sentence
    example = caught.value.advice.split("\n\n")[1].strip()
    assert len(example.splitlines()) == 3
    assert plan_of({"lazycloud.toml": example}).health == "/"


def test_a_dockerfile_comes_first_where_images_can_be_built_unless_lazycloud_toml_says_how_to_run() -> None:
    files = {
        "Dockerfile": "FROM base",
        "Procfile": "web: a\nworker: b\nrelease: c",
        "requirements.txt": "flask",
    }
    made = make_plan(tree(files), images=True)
    assert (made.runtime, made.dockerfile, made.run, made.dependencies) == (
        "dockerfile",
        "Dockerfile",
        "",
        (),
    )
    assert (made.release, made.background) == ("c", {"worker": "b"})
    assert made.settled(lambda _: False) is made
    assert plan_of(files).run == "a"
    for said in ('[run]\ncommand = "a"', '[build]\ndockerfile = ""', '[run]\nroot = "public"'):
        assert make_plan(tree(files | {"lazycloud.toml": said}), images=True).dockerfile == ""
    named = {"lazycloud.toml": '[build]\ndockerfile = "deploy/Dockerfile"\ncommand = "make"'}
    with pytest.raises(BadInput, match="names deploy/Dockerfile, which is not in the commit"):
        plan_of(named)
    made = make_plan(tree(named | {"deploy/Dockerfile": "FROM base"}), images=True)
    assert (made.dockerfile, made.build) == ("deploy/Dockerfile", None)
    assert "warning: `command` in [build] is not run: deploy/Dockerfile builds." in made.found


def test_a_commit_that_has_only_a_dockerfile_says_what_to_set_where_there_are_no_containers() -> None:
    with pytest.raises(StepFailed, match="this server runs no containers") as caught:
        plan_of({"Dockerfile": "FROM base"})
    assert 'isolation = "container"' in caught.value.advice


def test_an_importable_folder_under_src_is_on_the_path() -> None:
    assert plan_of({"src/shop/__init__.py": FLASK}).python_path == ("src",)
    assert plan_of({"shop/__init__.py": FLASK}).python_path == ()


def test_a_build_that_leaves_a_site_is_settled_afterwards() -> None:
    made = plan_of(
        {
            "package.json": package(scripts={"build": "vite build"}, devDependencies={"vite": "6"}),
            "index.html": "",
        }
    )
    assert (made.runtime, made.run, made.build) == ("static", "", "npm run build")
    node = made.needs("node")
    assert isinstance(node, NodeDependencies)
    assert node.dev
    assert made.settled(lambda root: root == "build").run.endswith(" build")
    with pytest.raises(StepFailed, match="no folder to serve"):
        made.settled(lambda root: False)


def test_a_build_command_overrides_the_script_and_an_empty_one_turns_it_off() -> None:
    files = {"package.json": package(scripts={"build": "x", "start": "y"})}
    assert plan_of(files).build == "npm run build"
    assert plan_of({**files, "lazycloud.toml": '[build]\ncommand = "make"'}).build == "make"
    assert plan_of({**files, "lazycloud.toml": '[build]\ncommand = ""'}).build is None


def test_a_build_depends_on_the_commit_only_if_it_mentions_its_id() -> None:
    assert plan_of(
        {"index.html": "", "lazycloud.toml": '[build]\ncommand = "echo $COMMIT_ID"'}
    ).build_reads_commit
    assert plan_of(
        {"package.json": package(scripts={"build": "x $COMMIT_ID", "start": "y"})}
    ).build_reads_commit
    assert not plan_of({"index.html": "", "lazycloud.toml": '[build]\ncommand = "make"'}).build_reads_commit


def test_a_package_json_of_a_python_app_counts_only_when_it_builds() -> None:
    lint = {
        "app.py": FLASK,
        "requirements.txt": "flask",
        "package.json": package(devDependencies={"prettier": "3"}),
    }
    assert plan_of(lint).needs("node") is None
    assets = {**lint, "package.json": package(devDependencies={"vite": "6"}, scripts={"build": "vite build"})}
    assert plan_of(assets).runtime == "python"
    assert plan_of(assets).needs("node") is not None
    assert plan_of(assets).build == "npm run build"


def test_a_python_command_gets_an_environment_even_without_packages() -> None:
    made = plan_of({"Procfile": "web: python serve.py", "serve.py": "", ".python-version": "3.12\n"})
    assert made.runtime == "python"
    python = made.needs("python")
    assert isinstance(python, PythonDependencies)
    assert (python.files, python.wanted, python.wanted_by) == ((), "3.12", ".python-version")
    assert plan_of({"Procfile": "web: ./serve"}).needs("python") is None


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({".python-version": "# mine\n3.11.4\n3.12"}, "3.11.4"),
        ({"runtime.txt": "python-3.10.1"}, "3.10.1"),
        ({"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.11,<4"'}, ">=3.11,<4"),
        ({"Pipfile.lock": '{"_meta": {"requires": {"python_version": "3.9"}}}'}, "3.9"),
        ({".python-version": "--help"}, None),
        ({".python-version": "/bin/sh"}, None),
        ({"pyproject.toml": '[project]\nname = "x"\nrequires-python = "/bin/sh"'}, None),
    ],
)
def test_the_python_that_is_wanted_is_read_from_the_usual_files(
    files: dict[str, str], wanted: str | None
) -> None:
    made = plan_of({**files, "app.py": "x"}).needs("python")
    assert made is not None
    assert made.wanted == wanted


def test_requirements_take_along_what_they_include() -> None:
    files = {
        "requirements.txt": "-r reqs/base.txt\n-c constraints.txt\nFlask_Login>=1",
        "reqs/base.txt": "-r more.txt\nflask",
        "reqs/more.txt": "-r base.txt\ngunicorn",
        "constraints.txt": "click<9",
    }
    found = python_dependencies(tree(files))
    assert found is not None
    assert {path for path, _ in found.files} == set(files)
    assert {"flask-login", "flask", "gunicorn"} <= found.names
    assert not found.local


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("-e .", True),
        (".", True),
        ("./vendor/x.whl", True),
        ("..", True),
        ("vendor/x.tar.gz", True),
        ("x @ file:///x", True),
        ("flask==3.1  # see a/b", False),
        ("x @ git+https://example.com/a/b", False),
        ("https://example.com/x.whl", False),
        ("--index-url https://example.com/simple", False),
    ],
)
def test_requirements_in_the_tree_are_told_from_others(line: str, local: bool) -> None:
    found = python_dependencies(tree({"requirements.txt": line}))
    assert found is not None
    assert found.local is local


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("flask==3.1.0\nclick == 8.1.8  # why\n-i https://index.example\n", True),
        ("flask==3.1.0 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def\n", True),
        ("tzdata==2025.1 ; sys_platform == 'win32'\n", True),
        ("", True),
        ("flask==3.1.0\nclick\n", False),
        ("flask==3.*\n", False),
        ("flask>=3\n", False),
        ("uvicorn[standard]==0.30.0\n", False),
        ("flask==3.1.0,!=3.1.1\n", False),
        ("flask @ https://files.example/flask.whl\n", False),
    ],
)
def test_requirements_that_leave_nothing_open_are_told_from_others(text: str, pinned: bool) -> None:
    made = python_dependencies(tree({"requirements.txt": text}))
    assert made is not None
    assert is_pinned(made) is pinned


def test_a_pipfile_lock_becomes_pins_with_hashes() -> None:
    locked = {
        "_meta": {"sources": [{"url": "https://pypi.org/simple"}, {"url": "https://example.com/simple"}]},
        "default": {
            "flask": {"version": "==3.1.0", "hashes": ["sha256:aa", "sha256:bb"], "extras": ["async"]},
            "tomli": {"version": "==2.0", "markers": "python_version < '3.11'"},
            "mine": {"git": "https://example.com/mine.git", "ref": "abc"},
        },
        "develop": {"pytest": {"version": "==8"}},
    }
    found = python_dependencies(tree({"Pipfile.lock": json.dumps(locked)}))
    assert found is not None
    assert found.files[0][1].decode().splitlines() == [
        "--extra-index-url https://example.com/simple",
        "flask[async]==3.1.0 --hash=sha256:aa --hash=sha256:bb",
        "mine @ git+https://example.com/mine.git@abc",
        "tomli==2.0 ; python_version < '3.11'",
    ]


def test_a_project_that_is_a_package_belongs_to_its_release_and_one_that_is_not_is_shared() -> None:
    project = '[project]\nname = "Shop-App"\nversion = "1"\ndependencies = ["flask"]\n'
    shared = python_dependencies(tree({"pyproject.toml": project}))
    local = python_dependencies(
        tree({"pyproject.toml": f'{project}[build-system]\nrequires = ["hatchling"]'})
    )
    assert shared is not None
    assert local is not None
    assert (shared.local, local.local) == (False, True)
    assert local.project == "Shop-App"
    only_tools = {"pyproject.toml": "[tool.ruff]\nline-length = 1", "requirements.txt": "flask"}
    found = python_dependencies(tree(only_tools))
    assert found is not None
    assert found.origin == "requirements.txt"


def test_a_uv_lock_with_packages_in_the_tree_is_local() -> None:
    lock = (
        'version = 1\n[[package]]\nname = "shop"\nsource = { virtual = "." }\n[[package]]\nname = "flask"\n'
    )
    project = '[project]\nname = "shop"\nversion = "1"'
    files = {"pyproject.toml": project, "uv.lock": lock, "requirements.txt": "x"}
    shared = python_dependencies(tree(files))
    local = python_dependencies(tree({**files, "uv.lock": lock.replace("virtual", "editable")}))
    assert shared is not None
    assert local is not None
    assert (shared.origin, shared.local, local.local) == ("uv.lock", False, True)
    assert "flask" in shared.names


@pytest.mark.parametrize(
    ("lockfile", "text", "manager", "version"),
    [
        ("package-lock.json", "{}", "npm", ""),
        ("npm-shrinkwrap.json", "{}", "npm", ""),
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'", "pnpm", "9"),
        ("pnpm-lock.yaml", "lockfileVersion: '6.0'", "pnpm", "8"),
        ("yarn.lock", "# yarn lockfile v1", "yarn", "1"),
        ("yarn.lock", "__metadata:\n  version: 8", "yarn", "4"),
        ("README", "", "npm", ""),
    ],
)
def test_the_lockfile_says_the_package_manager(lockfile: str, text: str, manager: str, version: str) -> None:
    made = plan_of(
        {"package.json": package(main="a.js", dependencies={"x": "1"}), "a.js": "", lockfile: text}
    ).needs("node")
    assert made is not None
    assert (made.manager, made.version) == (manager, version)


def test_package_manager_in_package_json_says_the_version() -> None:
    text = package(main="a.js", dependencies={"x": "1"}, packageManager="pnpm@9.1.0+sha512.abc")
    made = plan_of({"package.json": text, "a.js": "", "pnpm-lock.yaml": ""}).needs("node")
    assert made is not None
    assert made.version == "9.1.0"
    hostile = package(main="a.js", dependencies={"x": "1"}, packageManager="pnpm@9; touch x")
    made = plan_of({"package.json": hostile, "a.js": "", "pnpm-lock.yaml": ""}).needs("node")
    assert made is not None
    assert made.version == ""


@pytest.mark.parametrize(
    ("fields", "local"),
    [
        ({}, False),
        ({"workspaces": ["a"]}, True),
        ({"dependencies": {"x": "file:../x"}}, True),
        ({"dependencies": {"x": "1", "next": "15"}}, True),
        ({"dependencies": {"@prisma/client": "6"}}, True),
        ({"scripts": {"postinstall": "prisma generate"}}, True),
        ({"scripts": {"dependencies": "node scripts/patch.js"}}, True),
        ({"pnpm": {"patchedDependencies": {"x@1.0.0": "patches/x.patch"}}}, True),
    ],
)
def test_node_modules_that_need_the_tree_are_installed_in_it(fields: dict[str, object], local: bool) -> None:
    text = package(**{"main": "a.js", "dependencies": {"x": "1"}, **fields})
    made = plan_of({"package.json": text, "a.js": ""}).needs("node")
    assert made is not None
    assert made.local is local


@pytest.mark.parametrize("path", [".pnpmfile.cjs", ".yarn/releases/yarn-1.22.22.cjs"])
def test_packages_whose_manager_runs_a_file_of_the_app_are_the_commits_own(path: str) -> None:
    files = {"package.json": package(dependencies={"x": "1"}), "index.js": ""}
    shared, local = plan_of(files).needs("node"), plan_of({**files, path: ""}).needs("node")
    assert shared is not None
    assert local is not None
    assert (shared.local, local.local) == (False, True)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("package.json", "{"),
        ("package.json", "[]"),
        ("pyproject.toml", "x ="),
        ("Pipfile.lock", "nonsense"),
        ("Procfile", "web: a\nweb: b"),
    ],
)
def test_a_file_that_is_wrong_is_named(path: str, text: str) -> None:
    with pytest.raises(BadInput, match=path):
        plan_of({"app.py": "x", path: text})


@pytest.mark.parametrize(
    "text",
    [
        '{"scripts": [], "dependencies": 3, "main": 4, "packageManager": 5}',
        '{"scripts": {"start": 3}, "dependencies": {"x": {}}, "devDependencies": null}',
    ],
)
def test_a_package_json_of_odd_types_does_not_break_the_plan(text: str) -> None:
    assert plan_of({"package.json": text, "index.js": ""}).run == "node index.js"


@pytest.mark.parametrize(
    "text",
    ["project = 3", "[project]\ndependencies = 3", "[tool]\nuv = 3\n[project]\nname = 'x'", "tool = 1"],
)
def test_a_pyproject_of_odd_types_is_bad_input_or_left_alone(text: str) -> None:
    try:
        plan_of({"pyproject.toml": text, "app.py": "x"})
    except BadInput as refused:
        assert "pyproject.toml" in refused.sentence
