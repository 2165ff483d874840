"""`lingering.py DATABASE SEED`: an app that reads for long, writes for long, and waits for its own checkpoints."""

import random
import sqlite3
import sys
import time

database, seed = sys.argv[1:]
chance = random.Random(int(seed))
connection = sqlite3.connect(database, isolation_level=None, timeout=30)
while True:
    try:
        roll = chance.random()
        if roll < 0.2:
            kind = chance.choice(("FULL", "RESTART", "TRUNCATE"))
            connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
            continue
        if roll < 0.6:
            connection.execute("BEGIN")
            connection.execute("SELECT max(number) FROM log").fetchone()
        else:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM cells")
        time.sleep(chance.uniform(0.1, 1.0))
        connection.execute("ROLLBACK")
    except sqlite3.Error:  # it waited for long, or its tables are not there yet
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    time.sleep(chance.uniform(0, 0.5))
