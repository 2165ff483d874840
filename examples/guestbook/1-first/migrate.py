"""Brings the data to the schema of this commit, one numbered file after the other."""

from pathlib import Path

import book


def migrate():
    files = sorted(Path("migrations").glob("*.sql"))
    before = book.schema()
    if before > len(files):
        print(f"The data has schema {before}, newer than this commit's {len(files)}; it is left as it is.")
    for number, file in list(enumerate(files, 1))[before:]:
        with book.connect() as connection:
            connection.executescript(f"BEGIN; {file.read_text()} PRAGMA user_version = {number}; COMMIT;")
        print(f"Applied {file.name}.")


migrate()
