"""Walls around what is not ours: what a process of an app may see, use and reach.

A bottom part, as `processes` is: builds and workers both put commands behind walls. `sandbox` shows a process
only what it needs, `groups` bounds what all its processes may use together, and ends them together.
"""
