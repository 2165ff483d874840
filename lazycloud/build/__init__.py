"""From a commit of a git repository to a Release: what is immutable, and how to run it.

repository   a git repository, local or mirrored: refs, commits, labels, the files of a commit
source       git objects -> files; submodules beside it
settings     lazycloud.toml of a commit; procfile: its Procfile
plan         what a commit's files say about how to install, build and run it; pure
runtimes     nix, python, node, php, static: a file each, for all that lazycloud knows of them
toolchain    the programs of this machine that they need
recipe       a plan on this machine: its stages, their keys and all that goes into them; pure
stages       source -> dependencies -> build; a key that exists is not made again
outputs      builds that say what they read, done once for all commits that agree on it
marker, seal what says that a folder is whole; what keeps it as it is
"""
