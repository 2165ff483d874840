"""Data: versions of what a worker reads and writes, forked from one another and never merged back.

versions   the versions of an app: fork, snapshot, drop, and where a worker finds its own
names      which names a version or a snapshot may have
copying    a consistent copy of a database and a folder of files, beside a writer
sqlite     the copy of one SQLite database
files      the copy of a folder of files
durable    what survives a power cut
"""
