"""An app that writes: `writer.py DATABASE JOURNAL_MODE COUNTER`, until it is ended.

Every transaction moves an amount from one table to the other, so that the sum of both never changes; COUNTER
is a file with the number of commits so far.
"""

import random
import sqlite3
import sys
from pathlib import Path

database, mode, counter = sys.argv[1:]
connection = sqlite3.connect(database, timeout=30, isolation_level=None)
connection.execute(f"PRAGMA journal_mode={mode}")
connection.execute("CREATE TABLE IF NOT EXISTS ours (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB)")
connection.execute("CREATE TABLE IF NOT EXISTS theirs (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB)")
connection.execute("CREATE TABLE IF NOT EXISTS moves (id INTEGER PRIMARY KEY, note BLOB)")
connection.execute("BEGIN")
for number in range(200):
    connection.execute("INSERT OR IGNORE INTO ours VALUES (?, 1000, randomblob(3000))", (number,))
    connection.execute("INSERT OR IGNORE INTO theirs VALUES (?, 1000, randomblob(3000))", (number,))
connection.execute("COMMIT")

commits = 0
while True:
    amount, one, other = random.randrange(100), random.randrange(200), random.randrange(200)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "UPDATE ours SET amount = amount - ?, note = randomblob(3000) WHERE id = ?", (amount, one)
    )
    connection.execute("INSERT INTO moves (note) VALUES (randomblob(100))")
    connection.execute("UPDATE theirs SET amount = amount + ? WHERE id = ?", (amount, other))
    connection.execute("COMMIT")
    commits += 1
    Path(counter).write_text(str(commits))
