"""Preloaded starts: a worker as a fork of a Python that has imported what it needs.

words        a command line as the shell would read it, where that is simple
invocation   the Python program that a command line runs, if it runs one of its environment
start        one start: what to run, with which variables, and whose parent can do it
parent       one process that waits to be forked, and the talk with it
parents      those of a server: one per environment and variables, a bounded number
inside/      what that process runs, by the app's own Python: no part of lazycloud is importable there

What a worker imports is noted by the first ones of an environment. A parent tries each of these modules in a
fork, leaves out what would not be the same for every worker, imports the rest, and is forked from then on. Whatever
is off (a command that no fork can stand for, a file of the app that hides a module, a parent that is slow or gone)
leads to a plain start, and the deploy's log says why.
"""
