"""All runtimes, in the order in which they are asked: what somebody wrote down comes before what files look like."""

from __future__ import annotations

from lazycloud.build.runtimes.command import Command
from lazycloud.build.runtimes.dockerfile import Dockerfile
from lazycloud.build.runtimes.nix import Nix
from lazycloud.build.runtimes.node import Node
from lazycloud.build.runtimes.php import Php
from lazycloud.build.runtimes.python import Python
from lazycloud.build.runtimes.runtime import Runtime
from lazycloud.build.runtimes.static import Static

RUNTIMES: tuple[Runtime, ...] = (Nix(), Dockerfile(), Command(), Python(), Node(), Php(), Static())
BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}
