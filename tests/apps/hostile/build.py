"""The same at the time of its build: what it got is left for the app to tell."""

import json
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(__file__))
os.environ.setdefault("DATA_DIR", os.environ["TMPDIR"])
import app

told = json.load(open("told.json"))
got = {name: app.ATTACKS[name](words) for name, words in told["attacks"].items()}
try:
    socket.create_connection(("127.0.0.1", told["port"]), 5).close()
    got["network"] = ["connected"]
except OSError:
    got["network"] = []
got["secrets"] = [name for name, value in os.environ.items() if "SECRET-WORD" in value]
with open("built.json", "w") as file:
    json.dump(got, file)
