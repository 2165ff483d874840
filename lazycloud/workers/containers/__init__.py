"""Workers in containers of a Docker-compatible engine: the same release, the same contract, the same states.

engine      starts, finds again and removes containers; builds images of Dockerfiles
daemon      the engine's API, and its troubles in words
machine     what of this machine a container sees
root        the empty image that the machine's own programs are mounted into
recipe      what the engine is told of one container
worker      a container that serves, from its start to its removal
ending      how a container ended, also when the engine is away
readiness   whether it listens, inside of its own network
copying     what a container writes that has no file to write to
images      images of Dockerfiles
findings    what an engine lacks
"""
