# SPDX-License-Identifier: GPL-2.0-only
"""Who may do what: nodes are root's, a file reaches the memory of who bound it, and nothing else."""

from __future__ import annotations

import pytest

from harness.target.lab import Lab

pytestmark = pytest.mark.vm

NODES = ["/dev/hmm_harness0", "/dev/hmm_harness1", "/dev/hmm_mirror0", "/dev/hmm_mirror1"]

# What scripts in the guest share: the ioctls, as numbers and layouts that no header of ours is needed for
CALLS = """
import ctypes, errno, fcntl, mmap, os, socket, struct, sys

NODE = sys.argv[1]
PAGE = 4096
BIND, UNBIND, READ, WRITE = 0xD801, 0xD802, 0xD805, 0xD806
WATCH, WATCHED = 0xD811, 0xD812

def call(file, number, *rest, form="=II", size=None, flags=0):
    args = bytearray(struct.pack(form, size or struct.calcsize(form), flags, *rest))
    try:
        fcntl.ioctl(file, number, args)
        return "ok"
    except OSError as failed:
        return errno.errorcode[failed.errno]

def access(file, number, address, data=b""):
    page = ctypes.create_string_buffer(data.ljust(PAGE, b"."), PAGE)
    said = call(file, number, address, 1, 0, ctypes.addressof(page), 0, 0, form="=IIQQQQQQ")
    return said, page.raw.strip(b".\\0").decode()

memory = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

def keep(text):
    memory[:PAGE] = text.ljust(PAGE, b".")

def kept():
    return memory[:PAGE].strip(b".").decode()

def apart(run):
    "Runs in a child, waits for it."
    sys.stdout.flush()
    if os.fork() == 0:
        run()
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0

def say(*words):
    print(*words, flush=True)
"""


def said(lab: Lab, script: str, node: str) -> list[str]:
    """The lines that `script` prints in the guest, with `node` as NODE."""
    vm = lab.vm()
    vm.put("/tmp/access.py", (CALLS + script).encode())
    status, output = vm.exec(f"python3 /tmp/access.py {node} 2>&1", timeout=120)
    assert status == 0, output
    return output.splitlines()


def test_nodes_and_files_are_roots(lab: Lab) -> None:
    _, output = lab.vm().exec("stat -c '%a %u %g %n' /dev/hmm_harness* /dev/hmm_mirror*", timeout=30)
    seen = output.splitlines()
    assert set(seen) >= {f"600 0 0 {node}" for node in NODES}
    assert all(line.startswith("600 0 0 ") for line in seen)
    _, output = lab.vm().exec("stat -c '%a %u' /sys/kernel/debug/hmm_harness/*", timeout=30)
    assert set(output.splitlines()) == {"400 0"}
    _, output = lab.vm().exec("stat -c '%a %n' /sys/module/hmm_harness/parameters/*", timeout=30)
    writable = [line for line in output.splitlines() if not line.startswith("444 ")]
    assert writable == ["644 /sys/module/hmm_harness/parameters/wrong"]


OPENED = """
def try_open():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try:
            os.open(NODE, mode)
            say("opened")
        except OSError as failed:
            say(errno.errorcode[failed.errno])
apart(try_open)
os.close(os.open(NODE, os.O_RDWR))
say("root opened")
"""


@pytest.mark.parametrize("node", NODES)
def test_nobody_but_root_opens_a_node(lab: Lab, node: str) -> None:
    assert said(lab, OPENED, node) == ["EACCES", "EACCES", "EACCES", "root opened"]


# A file that is handed on, to who has other memory at the same address and no rights at all.
HANDED = """
here, there = socket.socketpair()

def binder():
    keep(b"binder")
    file = os.open(NODE, os.O_RDWR)
    assert call(file, BIND) == "ok"
    socket.send_fds(here, [b"1"], [file])
    os.close(file)
    here.recv(1)
    say("binder keeps", kept())

keep(b"receiver")
sys.stdout.flush()
child = os.fork()
if child == 0:
    binder()
    os._exit(0)
_, (file,), _, _ = socket.recv_fds(there, 1, 1)
os.setgid(65534)
os.setuid(65534)
say("read", *access(file, READ, address))
say("written", access(file, WRITE, address, b"device")[0])
say("receiver keeps", kept())
say("bind again", call(file, BIND))
there.send(b"1")
os.waitpid(child, 0)
say("binder is gone", access(file, READ, address)[0])
say("unbind", call(file, UNBIND))
say("bind", call(file, BIND))
say("read", *access(file, READ, address))
"""


@pytest.mark.parametrize("node", ["/dev/hmm_harness0", "/dev/hmm_mirror0"])
def test_a_file_acts_on_the_memory_of_who_bound_it(lab: Lab, node: str) -> None:
    lines = said(lab, HANDED, node)
    assert lines == [
        "read ok binder",
        "written ok",
        "receiver keeps receiver",
        "bind again EBUSY",
        "binder keeps device",
        "binder is gone ESRCH",
        "unbind ok",
        "bind ok",
        "read ok receiver",
    ]


UNBOUND = """
keep(b"mine")
file = os.open(NODE, os.O_RDWR)
say("read", access(file, READ, address)[0])
say("write", access(file, WRITE, address, b"device")[0])
say("unbind", call(file, UNBIND))
say("keeps", kept())
"""


@pytest.mark.parametrize("node", ["/dev/hmm_harness0", "/dev/hmm_mirror0"])
def test_a_file_that_nobody_bound_reaches_no_memory(lab: Lab, node: str) -> None:
    assert said(lab, UNBOUND, node) == ["read ENXIO", "write ENXIO", "unbind ENXIO", "keeps mine"]


# BIND has no words for another process: not in its flags, and not behind what the module knows of its struct.
OTHERS = """
keep(b"mine")
file = os.open(NODE, os.O_RDWR)
other = os.getppid()
say("flags", call(file, BIND, flags=other))
say("more", call(file, BIND, other, form="=IIQ"))
say("no more", call(file, BIND, 0, form="=IIQ"))
say("read", *access(file, READ, address))
"""


@pytest.mark.parametrize("node", ["/dev/hmm_harness0", "/dev/hmm_mirror0"])
def test_bind_takes_the_callers_memory_and_no_others(lab: Lab, node: str) -> None:
    assert said(lab, OTHERS, node) == ["flags EINVAL", "more E2BIG", "no more ok", "read ok mine"]


# Results go where the caller says, and that memory may never come: whoever waits for it must not hold up the others.
AWAITED = """
import threading, time

SYS_USERFAULTFD, UFFDIO_API, UFFDIO_REGISTER = 323, 0xC018AA3F, 0xC020AA00
results = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
missing = ctypes.addressof(ctypes.c_char.from_buffer(results))
faults = ctypes.CDLL(None).syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("=QQQQ", missing, PAGE, 1, 0)))

file = os.open(NODE, os.O_RDWR)
say("bind", call(file, BIND))
say("watch", call(file, WATCH, address, 1, 0, 0, 0, 0, form="=IIQQQQQQ"))

def watched():
    say("watched", call(file, WATCHED, address, 1, missing, 0, 0, 0, form="=IIQQQQQQ"))

waits = threading.Thread(target=watched)
waits.start()
time.sleep(1)
say("waits", waits.is_alive())
unbinds = threading.Thread(target=lambda: say("unbind", call(file, UNBIND)))
unbinds.start()
unbinds.join(timeout=20)
os.close(faults)
waits.join()
unbinds.join()
"""


def test_who_waits_for_memory_of_its_own_holds_up_nobody(lab: Lab) -> None:
    assert said(lab, AWAITED, "/dev/hmm_harness0") == ["bind ok", "watch ok", "waits True", "unbind ok", "watched ok"]


# Beyond what any process can have, though nothing wraps
FAR = """
WHERE = 1 << 62
file = os.open(NODE, os.O_RDWR)
say("bind", call(file, BIND))
say("read", access(file, READ, WHERE)[0])
say("refuse", call(file, 0xD81B, WHERE, 1, form="=IIQQ"))
for flags in (0, 2, 4, 6):
    say("watch", call(file, WATCH, WHERE if flags < 6 else address, 1, 0, 0, 0, 0, form="=IIQQQQQQ", flags=flags))
say("watched", call(file, WATCHED, WHERE, 1, 0, 0, 0, 0, form="=IIQQQQQQ"))
say("sequence", call(file, 0xD819, WHERE, 1, 0, 0, 0, 0, 0, 0, form="=IIQQQQQIIQ"))
"""


@pytest.mark.parametrize(("node", "watches"), [("/dev/hmm_harness0", "EINVAL"), ("/dev/hmm_mirror0", "ENOTSUP")])
def test_a_range_that_no_process_can_have_is_refused(lab: Lab, node: str, watches: str) -> None:
    lines = said(lab, FAR, node)
    assert lines[:3] == ["bind ok", "read EINVAL", "refuse EINVAL"]
    assert lines[3:] == [*[f"watch {watches}"] * 4, f"watched {watches}", f"sequence {watches}"]


# Asked by root, and by nobody in particular
NUMBERS = """
keep(b"mine")
room = ctypes.create_string_buffer(8)
file = os.open(NODE, os.O_RDWR)
say("bind", call(file, BIND))

def request(raw):
    return call(file, 0xD810, address, 1, 1, 0, 0, 0, 0, 0, raw, *[0] * 8, form="=IIQQIIII11Q")

def move(*where):
    return call(file, 0xD815, address, 1, 1, 0, 0, 0, *where, *[0] * 6, form="=IIQQII11Q", flags=1)

def ask():
    at = ctypes.addressof(room)
    say("raw", request(at), "else", request(0))
    for which in range(3):
        say("move", move(*[at if each == which else 0 for each in range(3)]))
    say("move", move(0, 0, 0))
ask()
os.setuid(65534)
ask()
"""


def test_numbers_of_pages_are_for_who_may_have_them(lab: Lab) -> None:
    lines = said(lab, NUMBERS, "/dev/hmm_harness0")
    assert lines[:6] == ["bind ok", "raw ok else ok", *["move ok"] * 4]
    assert lines[6:] == ["raw EPERM else ok", *["move EPERM"] * 3, "move ok"]


# 64 MiB of all together, 2 MiB at a time
MAPPED = """
file = os.open(NODE, os.O_RDWR)
kept = []
try:
    while len(kept) < 40:
        kept.append(mmap.mmap(file, 512 * PAGE, flags=mmap.MAP_SHARED))
except OSError as failed:
    say(len(kept), errno.errorcode[failed.errno])
kept.pop().close()
kept.append(mmap.mmap(file, 512 * PAGE, flags=mmap.MAP_SHARED))
say("again")
"""


@pytest.mark.parametrize("node", ["/dev/hmm_harness0", "/dev/hmm_mirror0"])
def test_what_nodes_give_out_has_a_limit(lab: Lab, node: str) -> None:
    assert said(lab, MAPPED, node) == ["32 ENOMEM", "again"]
