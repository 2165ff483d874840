"""Data: versions of what a worker reads and writes, forked from one another and never merged back.

versions   the versions of an app: fork, snapshot, drop, and where a worker finds its own
names      which names a version or a snapshot may have
copying    a consistent copy of a database and a folder of files, beside a writer
sqlite     the copy of one SQLite database
files      the copy of a folder of files
wal        where a database in WAL mode is now, and whether the bytes of a WAL lead there
image      a database as it was there, made and folded without SQLite
blocks     the contents of a file, shared where the file system can
fingerprint  what a database holds, as a number: the proof of an image
tools      what reads and writes the contents for people, in processes of its own
provider   the seam for what a version has beside its folder, on a server of its own
postgres   a database on a Postgres server for each version
redis      a Redis for each version that wants one
resp       a few words with a Redis
durable    what survives a power cut
line       the databases of a live version, held, so that any moment of them can be had as an image
held       one of them: its generations, and its WAL moved on
archive    what is kept of its past
holder     the process that speaks SQLite to them; holding is how it is started and spoken to
"""
