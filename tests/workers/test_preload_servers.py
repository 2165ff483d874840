"""The servers and frameworks that people run, preloaded: each serves, from the packages of one environment."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uv

from .preloading import Stand, fetch

pytestmark = [pytest.mark.registry, pytest.mark.slow]

PACKAGES = (
    "flask>=3,<4",
    "gunicorn>=23",
    "waitress>=3",
    "fastapi<1",
    "uvicorn<1",
    "hypercorn<1",
    "django>=5.2,<6",
)
NOTES = (
    "gunicorn.app.wsgiapp", "gunicorn.config", "gunicorn.glogging", "gunicorn.arbiter", "gunicorn.workers.sync",
    "flask", "flask.cli", "waitress.runner", "fastapi", "fastapi.applications", "uvicorn", "uvicorn.main",
    "uvicorn.protocols.http.h11_impl", "hypercorn.run", "hypercorn.asyncio", "django", "django.core.management",
    "django.core.servers.basehttp", "django.contrib.auth.models", "wsgiref.handlers", "zoneinfo", "sysconfig",
    "multiprocessing.process", "django.core.wsgi", "django.db.models",
)  # fmt: skip
FILES = {
    "wsgi_app.py": "from flask import Flask\napp = Flask(__name__)\napp.get('/')(lambda: 'flask')\n",
    "asgi_app.py": "from fastapi import FastAPI\napp = FastAPI()\napp.get('/')(lambda: 'fastapi')\n",
    "script.py": "import os\nfrom wsgi_app import app\napp.run(os.environ['HOST'], int(os.environ['PORT']))\n",
    "manage.py": (
        "import os, sys\nfrom django.core.management import execute_from_command_line\n"
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_settings')\nexecute_from_command_line(sys.argv)\n"
    ),
    "site_settings.py": "DEBUG = True\nROOT_URLCONF = 'site_urls'\nSECRET_KEY = 'x'\nALLOWED_HOSTS = ['*']\n",
    "site_urls.py": (
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        "urlpatterns = [path('', lambda request: HttpResponse('django'))]\n"
    ),
    "site_wsgi.py": (
        "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_settings')\n"
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("environment") / "venv"
    tool = uv.find_uv_bin()
    subprocess.run([tool, "venv", "--quiet", "--no-project", place], check=True)
    subprocess.run([tool, "pip", "install", "--quiet", "--python", place, *PACKAGES], check=True)
    return place


@pytest.fixture
async def stand(tmp_path: Path, venv: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path, venv)
    for name, text in FILES.items():
        (stand.app / name).write_text(text)
    yield stand
    await stand.close()


async def test_each_server_starts_preloaded_and_serves(stand: Stand) -> None:
    said = {
        "gunicorn wsgi_app:app": "flask",  # binds to PORT by itself
        "python -m gunicorn --bind $HOST:$PORT site_wsgi": "django",
        "gunicorn --workers 2 --bind $HOST:$PORT --preload wsgi_app:app": "flask",
        "flask --app wsgi_app run --host $HOST --port $PORT": "flask",
        "python -m flask --app wsgi_app:app run --host $HOST --port $PORT": "flask",
        "waitress-serve --host=$HOST --port=$PORT wsgi_app:app": "flask",
        "python -m waitress --host=$HOST --port=$PORT wsgi_app:app": "flask",
        "uvicorn --host $HOST --port $PORT asgi_app:app": '"fastapi"',
        "python -m uvicorn --host $HOST --port $PORT --workers 2 asgi_app:app": '"fastapi"',
        'hypercorn --bind "$HOST:${PORT}" asgi_app:app': '"fastapi"',
        "python script.py": "flask",
        "python manage.py runserver --noreload $HOST:$PORT": "django",
    }
    parent = await stand.preloaded("python script.py", *NOTES)
    verdict = stand.verdict(parent)
    assert {"flask", "fastapi", "waitress.runner", "uvicorn", "django.core.management"} <= {*verdict["clean"]}
    assert verdict["dirty"]["gunicorn.config"] == "reads PORT"
    for command, text in said.items():
        worker = await stand.start(command)
        assert worker.record.preloaded, (command, stand.said)
        await worker.ready()
        assert await fetch(worker) == text, command
        await worker.stop()
        assert not worker.is_running
    assert {line.split(":")[0] for line in stand.said} == {"Preloaded"}
