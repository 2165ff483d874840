"""Deployments: what joins builds, data and workers.

steps        the timed pieces of a deploy, and how long each usually takes
transcript   what a deploy wrote: in memory for those who watch, whole in a file
deployment   one (commit, version) and its life: state, steps, gate for those who wait
app          a repository served under a domain, with its builds and its data
deploy       source, dependencies, build, data, release, start, ready, after
turns        so many deploys at work at a time, first come first served
fleet        every deployment of a server: get or start, stop, find again
production   the pointer app -> commit: promote, roll back, follow a branch
"""
