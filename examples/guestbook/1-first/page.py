"""The page, from templates; whatever visitors wrote is escaped."""

import os
import time
from html import escape
from pathlib import Path
from string import Template

import book

PAGE = Template(Path("templates/page.html").read_text())
ENTRY = Template(Path("templates/entry.html").read_text())


def guestbook():
    return render("".join(entry(row) for row in book.entries()))


def message(sentence):
    return render(f"<p><strong>{escape(sentence)}</strong> <a href='/'>Back to the guestbook</a></p>")


def render(content):
    sheets = sorted(Path("static").glob("*.css"))
    return PAGE.substitute(
        content=content,
        styles="".join(f"<link rel='stylesheet' href='/{sheet}'>" for sheet in sheets),
        commit=escape(os.environ.get("COMMIT_ID", "no commit")[:10]),
        version=escape(os.environ.get("LAZYCLOUD_VERSION", "this folder")[:10]),
        schema=book.schema(),
    )


def entry(row):
    fields = {name: escape(str(value)) for name, value in dict(row).items()}
    signed = time.localtime(row["signed"])
    return ENTRY.substitute(
        fields, date=time.strftime("%Y-%m-%d", signed), when=time.strftime("%d %B %Y", signed)
    )
