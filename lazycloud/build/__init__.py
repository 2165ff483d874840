"""From a commit of a git repository to a Release: what is immutable, and how to run it.

repository   a git repository, local or mirrored: refs, commits, labels, the files of a commit
source       git objects -> files; submodules beside it
settings     lazycloud.toml of a commit; procfile: its Procfile
plan         what a commit's files say about how to install, build and run it; pure
runtimes     python, node, static: what the plan asks about each
toolchain    the interpreters and tools of this machine that a plan needs
python_environment, node_modules: dependencies installed, one folder per set of inputs
stages       source -> dependencies -> build; each has a key of all its inputs and is not run twice
"""
