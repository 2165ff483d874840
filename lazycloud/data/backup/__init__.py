"""Backups: what a version held at one moment, in a store, so that it can be had back bit for bit.

chunks     the pieces that contents are kept in, each once, under the hash of what it holds
manifest   what one backup is of: every path with its hash, every database with its fingerprint; signed
making     a folder -> a backup
layering   a large database in layers, into pieces and out of them
reading    a backup -> a folder; whether all of it is whole; what there is
standing   how it is with those of each app
job        these, in a process of their own

A store has a part for each app of each server, and nobody else writes there. docs/backup.md describes the files.
"""
