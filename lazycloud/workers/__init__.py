"""Workers: a running process of a deployment, at an address. It belongs to nobody's lifetime.

worker       one process group: started, waited for, adopted after control restarts, stopped
preload/     Python workers as forks of a process that has imported their packages
command      how a shell string of an app is run
environment  all that a worker's process gets to see
readiness    waits until the worker's own process listens, and answers if asked to
listeners    who listens where, from the kernel
ports        numbers to listen on that are nobody else's
logs         what a worker writes: its last lines, following it, rotation
usage        memory and cpu of a worker's processes
static       a worker of our own: serves a folder of files

Nothing is imported here, because `static` starts as a process of its own and is to start fast.
"""
