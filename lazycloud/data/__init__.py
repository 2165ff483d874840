"""Data: versions of what a worker reads and writes, forked from one another and never merged back.

versions   the versions of an app: fork, snapshot, swap, drop, and where a worker finds its own
names      which names a version or a snapshot may have, and how people say which they mean
lines      which versions are held, and the copy of a whole version, made without SQLite
files      the copy of a folder of files
readers    who reads a folder, so that it stays meanwhile
swaps      two folders that take each other's names, taken back after a crash
durable    what survives a power cut
within     an app's files, opened so that no link of its leads anywhere
extents    what each version has of the disk alone

line       the databases of a live version, held, so that any moment of them can be had as an image
held       one of them: its generations, and its WAL moved on
archive    what is kept of its past
holder     the process that speaks SQLite to them; holding is how it is started and spoken to
wal        where a database in WAL mode is now, and whether the bytes of a WAL lead there
image      a database as it was there, made and folded without SQLite
blocks     the contents of a file, shared where the file system can
fingerprint  what a database holds, as a number: the proof of an image

beside     what versions have beside their folders, and all of it changed together
provider   the seam for that
postgres   a database on a Postgres server for each version
redis      a Redis for each version that wants one; resp is a few words with it
backup     production's data in a store, bit for bit
tools      what reads and writes the contents for people, in processes of its own
"""
