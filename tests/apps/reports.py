"""Says all that a process can know of itself, in one line, then listens."""

import atexit
import json
import os
import random
import resource
import signal
import site
import socket
import sys
import sysconfig
import threading
import time
import wsgiref.handlers
from pathlib import Path

try:
    import zoneinfo
except ImportError:  # Python 3.8
    zoneinfo = None


TOLD = ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "Umask", "NoNewPrivs")


def dispositions() -> dict:
    status = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t") for line in status if line.startswith(TOLD))


def report() -> dict:
    main = sys.modules["__main__"]
    return {
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "path": sys.path,
        "flags": str(sys.flags),
        "warnoptions": sys.warnoptions,
        "meta_path": [str(finder) for finder in sys.meta_path],
        "main": {
            name: str(vars(main)[name]).split(" object at ")[0]
            for name in sorted(vars(main))
            if name.startswith("__")
        },
        "is main": vars(main) is globals(),
        "environ": dict(os.environ),
        "kernel's environ": sorted(
            filter(None, Path("/proc/self/environ").read_bytes().decode().split("\0"))
        ),
        "kernel's line": Path("/proc/self/cmdline").read_bytes().decode(),
        "comm": Path("/proc/self/comm").read_text(),
        "exe": str(Path("/proc/self/exe").resolve()),
        "cwd": str(Path.cwd()),
        "leads": (os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()),
        "open": {name: Path(f"/proc/self/fd/{name}").resolve().name for name in ("0", "1", "2")},
        "descriptors": sorted(place.name for place in Path("/proc/self/fd").iterdir() if place.exists()),
        "streams": [
            (str(s.encoding), s.errors, s.line_buffering, s.write_through) for s in (sys.stdout, sys.stderr)
        ],
        "stdin": (sys.stdin.fileno(), sys.stdin.read()),
        "signals": {str(n): str(signal.getsignal(n)) for n in signal.valid_signals()},
        "wakeup": signal.set_wakeup_fd(-1),
        "dispositions": dispositions(),
        "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "niceness": os.nice(0),
        "threads": [thread.name for thread in threading.enumerate()],
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "hooks": [str(hook) for hook in (sys.excepthook, sys.displayhook, sys.gettrace(), sys.getprofile())],
        "recursion": sys.getrecursionlimit(),
        "user's": (site.USER_BASE, site.USER_SITE, sysconfig.get_config_var("userbase")),
        "time zones": getattr(zoneinfo, "TZPATH", None),
        "cgi": {**wsgiref.handlers.BaseHandler.os_environ},
        "random": random.random(),
    }


if __name__ == "__main__":
    print(json.dumps(report()), flush=True)
    what = sys.argv[1] if len(sys.argv) > 1 else "listen"
    atexit.register(print, "atexit ran", flush=True)
    threading.Thread(
        target=lambda: (threading.main_thread().join(), print("thread ended", flush=True))
    ).start()
    if what == "exit":
        sys.exit(3)
    elif what == "sentence":
        sys.exit("it could not go on")
    elif what == "raise":
        raise LookupError("nothing there")
    elif what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    elif what == "chained":
        try:
            json.loads("{")
        except ValueError as problem:
            raise RuntimeError("no settings") from problem
    else:
        with socket.create_server((os.environ["HOST"], int(os.environ["PORT"]))) as server:
            while True:
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                connection.close()
