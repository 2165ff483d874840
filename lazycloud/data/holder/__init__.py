"""The one process that speaks SQLite to the databases of a live version, so that an image of them can be made.

It never opens a database, a `-wal` or a `-shm` by itself, and closes no connection to one with a WAL: closing any
descriptor of such a file drops all POSIX locks that a process has on it, and the last connection that is closed
removes the WAL. What reads those files raw is another process, which speaks no SQLite to them (`data/line.py`).

    python -m lazycloud.data.holder        # commands come on stdin, answers go to stdout, a line of JSON each

It imports nothing of ours, and ends when its stdin does.
"""
