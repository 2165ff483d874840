"""Notes by Flask and SQLAlchemy; Alembic makes their table, and changes it."""

import os

from flask import Flask, jsonify, request
from models import Note
from sqlalchemy import create_engine, inspect, select
from sqlalchemy.orm import Session

engine = create_engine(os.environ["DATABASE_URL"], connect_args={"timeout": 20})
app = Flask(__name__)


@app.get("/")
def notes():
    with Session(engine) as session:
        texts = session.scalars(select(Note).order_by(Note.id)).all()
        return jsonify(
            notes=[note.text for note in texts],
            columns=[column["name"] for column in inspect(engine).get_columns("notes")],
        )


@app.post("/")
def add():
    with Session(engine) as session, session.begin():
        session.add(Note(text=request.get_data(as_text=True)))
    return "", 201
