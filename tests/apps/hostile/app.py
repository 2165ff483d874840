"""Tries to get out, with whatever it is told of the machine: POST the name of an attack and what it needs, as JSON.

Answers with what it got: anything but nothing is a hole. It knows no more than an app could guess or find out.
Whatever it is let do does no harm: calls that could are made with words that cannot succeed, and the error tells.
"""

import ctypes
import errno
import http.server
import json
import os
import socket
import sqlite3
import struct

libc = ctypes.CDLL(None, use_errno=True)
SEIZE = 0x4206  # to watch without stopping
BORN = os.urandom(8).hex()
NUMBERS = {
    "x86_64": {"mount": 165, "unshare": 272, "setns": 308, "chroot": 161, "keyctl": 250, "bpf": 321, "ptrace": 101,
               "open_by_handle_at": 304, "io_uring_setup": 425, "init_module": 175, "reboot": 169, "process_vm": 310,
               "pidfd_open": 434, "mknod": 133},
    "aarch64": {"mount": 40, "unshare": 97, "setns": 268, "chroot": 51, "keyctl": 219, "bpf": 280, "ptrace": 117,
                "open_by_handle_at": 265, "io_uring_setup": 425, "init_module": 105, "reboot": 142,
                "process_vm": 270, "pidfd_open": 434, "mknod": 33},
}[os.uname().machine]  # fmt: skip


def call(name, *words):
    """Whether the kernel did it."""
    ctypes.set_errno(0)
    arguments = [ctypes.c_char_p(word) if isinstance(word, bytes) else ctypes.c_long(word) for word in words]
    return libc.syscall(ctypes.c_long(NUMBERS[name]), *arguments) >= 0


def opened(path, how="rb"):
    try:
        with open(path, how) as file:
            if "r" in how:
                file.read(1)
            return True
    except OSError:
        return False


def read(places):
    """Files and sockets of the server, of other versions and of the machine."""
    return [place for place in places if opened(place)]


def by_links(places):
    """The same behind links that lie in its own data, in /tmp, and hard ones."""
    got = []
    for number, place in enumerate(places):
        for folder in (os.environ["DATA_DIR"], os.environ["TMPDIR"], "/tmp"):
            soft, hard = f"{folder}/soft{number}", f"{folder}/hard{number}"
            if not os.path.lexists(soft):
                os.symlink(place, soft)
            if opened(soft):
                got.append(soft)
            try:
                os.link(place, hard)
                got.append(hard)
            except OSError:
                pass
    return got


def by_processes(places):
    """The same through what /proc knows of other processes."""
    roots = [f"/proc/{pid}/{way}" for pid in os.listdir("/proc") if pid.isdigit() for way in ("root", "cwd")]
    got = [root + place for root in roots for place in places if opened(root + place)]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            held = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        got += [target for target in held if any(target.startswith(place) for place in places)]
    return got


def write(places):
    """Files that it makes or opens for writing."""
    got = []
    for place in places:
        try:
            os.close(
                os.open(
                    place,
                    os.O_WRONLY | (0 if place.startswith(("/proc", "/sys", "/dev")) else os.O_CREAT),
                    0o666,
                )
            )
            got.append(place)
        except OSError:
            pass
    return got


def find(marker):
    """Whose environment or command line holds a word that is another's, or whose files do."""
    got = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline", "maps"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    if marker.encode() in file.read() and int(pid) != os.getpid():
                        got.append(f"{pid} {name}")
            except OSError:
                pass
    return got


def touch_processes(pids):
    """Signals, ptrace, memory and descriptors of other processes, by the numbers that the machine has for them."""
    got = []
    for pid in pids:
        try:
            os.kill(pid, 0)
            got.append(f"signal to {pid}")
        except OSError:
            pass
        if call("ptrace", SEIZE, pid, 0, 0) or ctypes.get_errno() != errno.ESRCH:
            got.append(f"ptrace of {pid}")
        if call("pidfd_open", pid, 0):
            got.append(f"pidfd of {pid}")
        here = ctypes.create_string_buffer(8)
        span = struct.pack("QQ", ctypes.addressof(here), 8)
        call("process_vm", pid, span, 1, struct.pack("QQ", 0x400000, 8), 1, 0)
        if ctypes.get_errno() != errno.ESRCH:  # else there is somebody, who may have nothing just there
            got.append(f"memory of {pid}")
    return got


def talk_to(sockets):
    """Sockets of the machine that have a path, or a name only."""
    got = []
    for name in sockets:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(name)
                got.append(name)
            except OSError:
                pass
    return got


def ask_the_kernel(_):
    """Calls by which one gets out of walls."""
    nowhere, got = b"/nowhere-at-all", []
    for name, words in {
        "mount": (b"none", nowhere, b"tmpfs", 0, 0),
        "unshare": (0x10000000,),
        "chroot": (nowhere,),
        "keyctl": (0, -4, 0),
        "bpf": (-1, 0, 0),
        "open_by_handle_at": (-1, 0, 0),
        "io_uring_setup": (0, 0),
        "init_module": (0, 0, nowhere),
        "reboot": (0, 0, 0),
        "setns": (-1, 0),
    }.items():
        if call(name, *words) or ctypes.get_errno() != errno.EPERM:
            got.append(f"{name}: {errno.errorcode.get(ctypes.get_errno(), 'done')}")
    for become in (os.setuid, os.setgid, os.seteuid):
        try:
            become(0)
            got.append(become.__name__)
        except OSError:
            pass
    try:
        os.mknod("/tmp/disk", 0o660 | 0o060000, os.makedev(254, 0))
        got.append("mknod")
    except OSError:
        pass
    return got


def lead_away(places):
    """Put links in place of its own data, for whoever copies that with more rights than it has."""
    database, files = places
    own = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
    for path, target in ((own, database), (os.environ["DATA_DIR"], files)):
        if target:
            os.rename(path, f"{path}.own")
            os.symlink(target, path)
    return []


def tables(_):
    """What is in its own database and among its own files: a copy may have brought it something."""
    with sqlite3.connect(os.environ["DATABASE_URL"].removeprefix("sqlite:///")) as database:
        found = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
    return found + os.listdir(os.environ["DATA_DIR"])


ATTACKS = {
    one.__name__: one
    for one in (
        read, by_links, by_processes, write, find, touch_processes, talk_to, ask_the_kernel, lead_away, tables
    )
}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"born": BORN, "built": read(["built.json"]) and json.load(open("built.json"))})

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(ATTACKS[order["attack"]](order["with"]))

    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
