"""Runtimes: what lazycloud knows of Python, Node.js and the like, one file each.

runtime   what a runtime is, and how to write one
nix       programs by flake.nix or shell.nix, for all others
dockerfile  an image of the app's own, where workers are containers
command   whatever has a start command, and packages by a command of its own
python    with requirements (its lockfiles) and application (the object that a server runs)
node      package.json and the lockfiles of npm, pnpm and yarn
php       index.php and Composer
static    files that are served as they are

Planning runs and imports nothing of a commit; only `tool` and `install` touch the machine.
"""
