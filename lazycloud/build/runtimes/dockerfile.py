"""A Dockerfile: the app brings an image of its own, where workers are containers.

The image's own command serves, on $PORT; nothing else is installed or built for it.
"""

from __future__ import annotations

from lazycloud.build.runtimes.runtime import Look, Runtime, Way
from lazycloud.build.settings import NAME as SETTINGS_FILE
from lazycloud.errors import BadInput

FILE = "Dockerfile"


class Dockerfile(Runtime):
    name = "dockerfile"

    def find(self, look: Look) -> Way | None:
        """The one that lazycloud.toml names, or the usual one, unless that says another way to run the app."""
        settings = look.settings
        named = settings.dockerfile
        if named and not look.tree.exists(named):
            raise BadInput(
                f"{SETTINGS_FILE}: `dockerfile` in [build] names {named}, which is not in the commit.",
                'Name a file of the repository, or "" to use none.',
            )
        if not look.images or named == "" or settings.run_command or settings.root:
            return None
        path = named or FILE
        if not look.tree.exists(path):
            return None
        found = [f"Found {path}: builds an image, and runs its command."]
        if settings.build_command:
            found.append(f"warning: `command` in [build] is not run: {path} builds.")
        return Way(self.name, tuple(found), dockerfile=path)
