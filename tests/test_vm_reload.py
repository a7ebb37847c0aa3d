# SPDX-License-Identifier: GPL-2.0-only
"""Who uses the module is killed at any moment, and the module goes and comes back."""

from __future__ import annotations

import secrets

import pytest

from harness.explore.assault import searching_leaks
from harness.explore.reload import program, reload
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare
from harness.target.watchdog import complaints
from harness.target.wire import encode

pytestmark = pytest.mark.vm

ROUNDS = 200


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_killed_unloaded_and_loaded(lab: Lab, binding: str) -> None:
    seed = secrets.randbits(32)
    status, output, said = reload(lab.vm(), rounds=20, seed=seed, binding=binding)
    lab.discard()
    assert said == [], output
    assert status == 0, output


@pytest.mark.matrix
@pytest.mark.parametrize("flavour", ["plain", "debug"])
@pytest.mark.parametrize("spec", ["debian:6.1", "debian:7.3"])
def test_two_hundred_times(spec: str, flavour: str, cache: Cache, progress: Progress) -> None:
    machine = searching_leaks(prepare(spec, flavour, cache=cache, progress=progress))
    seed = secrets.randbits(32)
    with Lab(machine, cache=cache, progress=progress) as lab:
        status, output, said = reload(lab.vm(), rounds=ROUNDS, seed=seed)
    assert said == [], output
    assert status == 0, output


# Another agent of the guest's, on another port, that is killed while its executor is at a program and events come.
AGENT = """
import json, os, random, signal, socket, struct, subprocess, sys, time

request = open("/tmp/program", "rb").read()
head = json.dumps({"do": "run", "programs": [len(request)], "events": [0]}).encode()
for number in range(int(sys.argv[1])):
    ready = f"/tmp/ready{number}"
    port = 7800 + number
    agent = subprocess.Popen([sys.executable, "-B", "-m", "harness.guest.agent", "/payload", str(port), ready])
    while not (os.path.exists(ready) and open(ready).read().endswith("\\n")):
        assert agent.poll() is None, "the agent ended"
        time.sleep(0.01)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(struct.pack("!II", len(head), len(request)) + head + request)
    while not int(open("/sys/module/hmm_harness/refcnt").read()):
        time.sleep(0.001)
    time.sleep(random.random() * float(sys.argv[2]))
    refused = subprocess.run(["rmmod", "hmm_harness"], capture_output=True, text=True)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    end = time.monotonic() + 60
    while subprocess.run(["rmmod", "hmm_harness"], capture_output=True).returncode:
        assert time.monotonic() < end, "the module is still in use"
        time.sleep(0.01)
    print("refused:" if refused.returncode else "idle", refused.stderr.strip())
"""


def test_an_agent_is_killed(lab: Lab) -> None:
    """Each agent loads the module anew; with it dies its executor, at whatever it was."""
    vm = lab.vm()
    vm.put("/tmp/program", encode(program(), "interval", 60.0))
    vm.put("/tmp/agent.py", AGENT.encode())
    status, output = vm.exec("PYTHONPATH=/payload python3 /tmp/agent.py 3 0.3 2>&1", timeout=300)
    assert status == 0, output
    assert output.count("refused: ") == output.count("in use") == 3, output
    _, log = vm.exec("dmesg", timeout=60)
    assert complaints([*log.splitlines(), *vm.console.splitlines()], 0) == []
    lab.discard()


def test_a_module_in_use_stays_and_says_so(lab: Lab) -> None:
    vm = lab.vm()
    for node in ("/dev/hmm_harness1", "/dev/hmm_mirror0"):
        status, _ = vm.exec(f"sleep 600 < {node} & echo $! > /tmp/holder; sleep 0.5", timeout=60)
        assert status == 0
        answer, _ = vm.call({"do": "unload", "module": "hmm_harness"}, timeout=60)
        assert answer["error"] == "the kernel does not unload hmm_harness: it is in use"
        assert "open" in answer["hint"]
        assert vm.exec(f"test -c {node}", timeout=60)[0] == 0
        vm.exec("kill $(cat /tmp/holder); sleep 0.5", timeout=60)
    answer, _ = vm.call({"do": "unload", "module": "hmm_harness"}, timeout=60)
    assert "error" not in answer, answer
    answer, _ = vm.call({"do": "load", "module": "hmm_harness"}, timeout=60)
    assert "error" not in answer, answer
