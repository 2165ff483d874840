"""Every commit of an app is live at its own address, with data of its own.

    app         a git repository served under a domain
    commit      what is built and run, named by a label of the host: an id, or the slug of a branch or tag
    release     what a build leaves: source, dependencies, output, and how to run it; never changed
    version     a line of data; every commit has one, and `production` is one
    deployment  one (commit, version) and its life: state, steps, log, worker
    worker      a running process of a deployment, at an address
    event       a fact in the log; pages, command line and routers follow it
    production  the pointer app -> commit, with its history

A router maps a host to a worker, and asks control for what it does not know; control starts a deployment,
which joins builds, data and workers. Nothing below imports anything above: docs/architecture.md.
"""

__version__ = "0.1.0"
