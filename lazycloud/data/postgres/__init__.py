"""Postgres: each version has a database and a role of its own on one server, where we may make both.

provider   versions and snapshots: what `data.provider` asks for
databases  those of one app: made, copied, and given the names of versions
pool       production's copies to fork from: a sealed template, and databases made of it ahead
server     one server: its databases and roles, made, cloned, renamed, dropped; its errors in words
naming     names of databases, passwords of roles, and what is noted beside a database
takeover   what the role of a copy takes over from the role of its origin
programs   pg_dump and pg_restore
findings   what a server lacks, for `lazycloud doctor`

All state is the server's, and each step there is one transaction: a database gets its name, its role's name, a
password and the note of what it is at once, when it is whole. What has a name of half-made things goes at the next
start.
"""
