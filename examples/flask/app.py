"""A shopping list: Flask on SQLite."""

import os
import sqlite3

from flask import Flask, redirect, render_template_string, request, url_for

DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
PAGE = """
<!doctype html>
<title>Shopping list</title>
<h1>Shopping list</h1>
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul>
<form method="post"><input name="item" autofocus required><button>Add</button></form>
<footer>{{ commit[:7] }} at {{ url_for("show", _external=True) }}</footer>
"""

app = Flask(__name__)


def database():
    connection = sqlite3.connect(DATABASE, timeout=10)
    connection.execute("CREATE TABLE IF NOT EXISTS items (name TEXT NOT NULL)")
    return connection


@app.get("/")
def show():
    with database() as db:
        items = [name for (name,) in db.execute("SELECT name FROM items ORDER BY rowid")]
    return render_template_string(PAGE, items=items, commit=os.environ["COMMIT_ID"])


@app.post("/")
def add():
    with database() as db:
        db.execute("INSERT INTO items VALUES (?)", (request.form["item"],))
    return redirect(url_for("show"), 303)
