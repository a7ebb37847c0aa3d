# SPDX-License-Identifier: GPL-2.0-only
"""The host's hand in the guest: loads the modules, takes programs, answers with what they showed.

Serves frames on a loopback port: `!II`, the lengths of a JSON object and of a body, then both. A request is
`{"do": ...}`; see `Agent` for what can be done. A failure is answered by `{"error": ..., "hint": ...,
"log": [...]}`.

Runs with the guest's Python and nothing else, and is up as fast as it can be. An import costs a tenth of a
second under emulation: here and in what this imports, pathlib, dataclasses, typing and the like are done without.
"""

# ruff: noqa: PTH110, PTH123, PTH208

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
import zlib

from harness.guest import kernel
from harness.guest.kernel import AgentError, KernelLog
from harness.guest.leaks import Kmemleak
from harness.guest.runner import Executor, features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from harness.guest.events import Listener

    Answer = tuple[dict[str, Any], bytes]

PORT = 7700
READY_PORT = "hmm-harness.ready"
MARK = b"RUN\n"  # a program begins

_HEAD = struct.Struct("!II")
_MAX_JSON = 1 << 20
_MAX_BODY = 64 << 20
_FRAME_SECONDS = 30.0  # for the rest of a frame that has begun
_NODES = {"interval": "/dev/hmm_harness0", "mirror": "/dev/hmm_mirror0", "test_hmm": "/dev/hmm_dmirror0"}
_DEVICES = ("d0", "d1", "c0", "c1")  # harness/program/operations.py
_COHERENT = {"INTERVAL_COHERENT": "/dev/hmm_harness2", "TEST_HMM_COHERENT": "/dev/hmm_dmirror2"}
_SUSPECTED = "new suspected memory leaks"  # mm/kmemleak.c
_DMIRRORS = 2  # of lib/test_hmm.c, with device-private memory


class FrameError(Exception):
    """What came is no frame: nothing more can be understood on this connection."""


class Agent:
    """Does what requests ask for. `payload` has modules/*.ko and bin/executor; `log` reads the kernel's log.

    `mark` tells the host that another program begins: if nothing more is heard, it was that one.
    """

    def __init__(
        self,
        payload: str,
        log: KernelLog,
        kmemleak: Kmemleak | None = None,
        mark: Callable[[], object] = lambda: None,
    ) -> None:
        self._modules = f"{payload}/modules"
        self._modules_on_demand = f"{payload}/modules-on-demand"
        self._executor = Executor(f"{payload}/bin/executor")
        self._system_calls: list[str] = []
        self._log = log
        self._mark = mark
        self._unread: list[str] = []  # lines of it that were read, and not for who asked
        self._kmemleak = kmemleak or Kmemleak()
        self._listener: Listener | None = None
        self._tainted = kernel.Taint()
        self._taint = self._tainted.bits()
        self._mistakes: list[str] = []  # that the module makes now; to tell it takes as long as a short program
        self._loaded: dict[str, str] = {}
        self._loading: list[str] = []  # kernel log
        self._doings: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
            "hello": self._hello,
            "run": self._run,
            "case": self._case,
            "load": self._load,
            "unload": self._unload,
            "warm": self._warm,
            "leaks": self._leaks,
        }

    def prepare(self) -> None:
        """Loads every module of the payload and starts the executor. `hello` tells which modules did not load."""
        for file in sorted(os.listdir(self._modules)):
            name = file.removesuffix(".ko")
            try:
                kernel.load_module(f"{self._modules}/{file}", self._parameters(name))
                self._loaded[name] = "loaded"
            except AgentError as error:
                self._loaded[name] = error.message
        self._make_nodes()
        self._make_swap_space()
        kernel.load_unpoison(self._modules_on_demand)
        kernel.allow_huge_pages()
        kernel.watch_races()
        self._kmemleak.start()
        self._loading = self._log.lines()
        self._taint = self._tainted.bits()
        self._system_calls = features(self._executor.path)
        self._executor.start()

    def _make_swap_space(self) -> None:
        """Without it, which `hello` tells the reason of, programs that swap pages out are skipped."""
        try:
            kernel.make_swap_space(self._modules_on_demand)
        except AgentError as error:
            self._loaded["zram"] = error.message
        except OSError as error:
            self._loaded["zram"] = f"no swap space: {error}"

    def _parameters(self, module: str) -> str:
        """What `module` is loaded with, unless somebody says otherwise."""
        return kernel.memory_parameters(module, f"{self._modules}/{module}.ko", kernel.reserved_memory())

    def _make_nodes(self) -> None:
        kernel.make_missing_nodes("HMM_DMIRROR", "/dev/hmm_dmirror%d", _DMIRRORS)

    def hello(self) -> dict[str, Any]:
        """What there is: `bindings` are those that programs can use, `info` says why others are missing."""
        return {
            "release": os.uname().release,
            "taint": self._tainted.bits(),
            "bindings": [name for name, node in _NODES.items() if os.path.exists(node)],
            "info": {
                "modules": self._loaded,
                "log": self._loading,
                "mistakes": kernel.known_mistakes(),
                "kmemleak": self._kmemleak.on,
                "features": [
                    *kernel.features(),
                    *self._system_calls,
                    *(name for name, node in _COHERENT.items() if os.path.exists(node)),
                ],
                "python": ".".join(map(str, sys.version_info[:3])),
            },
        }

    def answer(self, request: dict[str, Any], body: bytes) -> Answer:
        """Does one request. Raises nothing: what goes wrong is in the answer."""
        try:
            doing = self._doings.get(str(request.get("do")))
            if doing is None:
                raise AgentError(f"cannot do {request.get('do')!r}", f"what can be done: {', '.join(self._doings)}")
            return doing(request, body)
        except AgentError as error:
            return self._error(error), b""
        except Exception as error:  # noqa: BLE001  the client must hear of it, and the next one be served
            import traceback  # noqa: PLC0415

            traceback.print_exc()
            return {"error": f"the agent failed: {error!r}", "hint": "its traceback is on the guest's console"}, b""

    def _error(self, error: AgentError) -> dict[str, Any]:
        return {"error": error.message, "hint": error.hint, "log": self._log.lines()}

    def _hello(self, _request: dict[str, Any], _body: bytes) -> Answer:
        return self.hello(), b""

    def _run(self, request: dict[str, Any], body: bytes) -> Answer:
        """`programs`: lengths of the requests that the body is made of; `wrong`: mistakes to make meanwhile.

        `events`: the indices of programs that hear what the module tells meanwhile; the body then has the messages
        behind the response, and the result their length. `asides`: by index, shell commands that are run to their
        end as if the program did it; a kernel that crashes in a program is tested so.

        With `packed`, both bodies are as zlib makes them: without hardware for it, to encrypt a byte for SSH takes
        longer than to pack it.

        The kernel's warnings, and the executor's, end it: there are no results of the programs behind the one that
        they are about. Nor are there behind one that cannot be run, whose error comes with those before.
        """
        lengths: list[int] = _list_of(int, request.get("programs"))
        wrong: list[str] = _list_of(str, request.get("wrong", []))
        listening: list[int] = _list_of(int, request.get("events", []))
        asides: dict[str, str] = request.get("asides", {})
        packed = bool(request.get("packed"))
        if packed:
            body = zlib.decompress(body)
        if any(length < 0 for length in lengths) or sum(lengths) != len(body):
            raise AgentError(f"`programs` has {lengths}, the body {len(body)} bytes")
        results: list[dict[str, Any]] = []
        responses = []
        error: dict[str, Any] = {}
        self._make_mistakes(wrong)
        try:
            start = 0
            for index, length in enumerate(lengths):
                self._mark()
                self._log.grave = False
                try:
                    listener = self._listen() if index in listening else None
                    aside = asides.get(str(index), "")
                    result, response = self._run_one(body[start : start + length], aside, listener)
                except AgentError as failure:
                    error = self._error(failure)
                    break
                results.append(result)
                responses.append(response)
                if self._log.grave or result["taint"] or result["remarks"]:
                    break
                start += length
        finally:
            self._make_mistakes([])
        told = b"".join(responses)
        answer = {"results": results, "packed": packed, **error}
        return answer, zlib.compress(told, 1) if packed else told

    def _make_mistakes(self, names: list[str]) -> None:
        if names != self._mistakes:
            self._mistakes = ["some, perhaps"]
            kernel.make_mistakes(names)
            self._mistakes = names

    def _listen(self) -> Listener:
        if self._listener is None:
            from harness.guest.events import Listener  # noqa: PLC0415  imports pyroute2: seconds, under emulation

            self._listener = Listener()
        return self._listener

    def _deaf(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _run_one(
        self, request: bytes, aside: str = "", listener: Listener | None = None
    ) -> tuple[dict[str, Any], bytes]:
        log = self._earlier()
        number = self._kmemleak.begin()
        if aside:
            os.system(aside)
        heard = b""
        if listener is not None:
            heard = listener.begin()
        start = time.monotonic()
        try:
            response = self._executor.run(request)
        finally:
            seconds = time.monotonic() - start
            self._kmemleak.end()
            if listener is not None:
                heard += listener.end()
        log += self._log.lines()
        before, self._taint = self._taint, self._tainted.bits()
        result = {
            "number": number,
            "length": len(response.data),
            "events": len(heard),
            "seconds": seconds,
            "log": [*log, *response.remarks],
            "remarks": len(response.remarks),
            "taint": before ^ self._taint,
            "residue": {_DEVICES[n]: pages for n, pages in enumerate(response.in_use) if pages is not None},
        }
        return result, response.data + heard

    def _earlier(self) -> list[str]:
        """Late words of an earlier program, perhaps: said, and said not to be those of the one that begins."""
        log = [*self._unread, *self._log.lines()]
        self._unread = []
        return [*log, kernel.EARLIER_LINES] if log else []

    def _case(self, request: dict[str, Any], _body: bytes) -> Answer:
        """Runs `case`, a number, of the kernel's own tests, the file `path`, for at most `seconds`.

        `status`, `late` and `left` are as harness/guest/cases.py has them; the body is what was printed.
        """
        from harness.guest.cases import run_case  # noqa: PLC0415  few need it

        self._mark()
        log = self._earlier()
        number = self._kmemleak.begin()
        start = time.monotonic()
        try:
            ended = run_case(str(request["path"]), int(request["case"]), float(request["seconds"]))
        finally:
            seconds = time.monotonic() - start
            self._kmemleak.end()
        log += self._log.lines()
        before, self._taint = self._taint, self._tainted.bits()
        return {
            "number": number,
            "status": ended.status,
            "late": ended.late,
            "left": ended.left,
            "seconds": seconds,
            "log": log,
            "taint": before ^ self._taint,
        }, ended.output

    def _load(self, request: dict[str, Any], _body: bytes) -> Answer:
        """`module`: its name; `parameters`: as on insmod's command line, else those that it was first loaded with."""
        name = _module_name(request)
        parameters = str(request["parameters"]) if "parameters" in request else self._parameters(name)
        kernel.load_module(f"{self._modules}/{name}.ko", parameters)
        self._loaded[name] = "loaded"
        self._make_nodes()
        self._taint = self._tainted.bits()
        return {}, b""

    def _unload(self, request: dict[str, Any], _body: bytes) -> Answer:
        name = _module_name(request)
        self._deaf()
        kernel.unload_module(name)
        self._loaded[name] = "unloaded"
        return {}, b""

    def _warm(self, _request: dict[str, Any], _body: bytes) -> Answer:
        """Goes once through what every program goes through, so that the first one after a restore need not."""
        from harness.guest.warm import requests  # noqa: PLC0415  imports cffi: a second, under emulation

        results = []
        for binding, request in requests().items():
            if os.path.exists(_NODES[binding]):
                result, _ = self._run_one(request, listener=self._listen() if binding == "interval" else None)
                results.append(result)
        return {"results": results}, b""

    def _leaks(self, _request: dict[str, Any], _body: bytes) -> Answer:
        """What was lost since this was asked last: for each object its `lines` and the numbers of the `programs`."""
        found = self._kmemleak.find()
        # kmemleak itself says in the log how many it suspects, and may be mistaken.
        self._unread += [line for line in self._log.lines() if _SUSPECTED not in line]
        return {"leaks": [{"programs": leak.programs, "lines": leak.lines} for leak in found]}, b""


def _list_of(kind: type, values: object) -> list[Any]:
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise AgentError("run needs `programs`, a list of lengths, and `wrong`, a list of names")
    return values


def _module_name(request: dict[str, Any]) -> str:
    name = request.get("module")
    if not isinstance(name, str) or not name.isidentifier():
        raise AgentError(f"{name!r} is no name of a module")
    return name


def read_frame(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, or None at the end of the connection. Raises `FrameError` and `OSError`."""
    head = _receive(connection, _HEAD.size)
    if not head:
        return None
    if len(head) < _HEAD.size:
        raise FrameError("the connection ended in the middle of a frame")
    json_length, body_length = _HEAD.unpack(head)
    if json_length > _MAX_JSON or body_length > _MAX_BODY:
        raise FrameError(f"lengths of {json_length} and {body_length} bytes: this is no frame")
    data = _receive(connection, json_length + body_length)
    if len(data) < json_length + body_length:
        raise FrameError("the connection ended in the middle of a frame")
    try:
        request = json.loads(data[:json_length])
    except ValueError as error:
        raise FrameError(f"what should be JSON is not: {error}") from error
    if not isinstance(request, dict):
        raise FrameError("what should be a JSON object is another value")
    return request, data[json_length:]


def write_frame(connection: socket.socket, answer: dict[str, Any], body: bytes = b"") -> None:
    """Sends one frame. Raises `OSError` if nobody takes it."""
    data = json.dumps(answer).encode()
    connection.sendall(_HEAD.pack(len(data), len(body)) + data + body)


def _receive(connection: socket.socket, length: int) -> bytes:
    """`length` bytes, or fewer at the end of the connection."""
    data = bytearray()
    while len(data) < length:
        part = connection.recv(min(length - len(data), 1 << 20))
        if not part:
            break
        data += part
    return bytes(data)


class Server:
    """Serves any number of connections, one request at a time.

    More than one at once, because a VM may be saved with a connection open whose client is never heard of again.
    """

    def __init__(self, agent: Agent, port: int) -> None:
        self._agent = agent
        self._listener = socket.create_server(("127.0.0.1", port))
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._connections: dict[int, socket.socket] = {}

    @property
    def port(self) -> int:
        """Where it listens: what was asked for, or what the system chose for port 0."""
        port: int = self._listener.getsockname()[1]
        return port

    def serve_forever(self) -> None:
        """Never returns."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif not self._serve(self._connections[fd]):
                    self._poll.unregister(fd)
                    self._connections.pop(fd).close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except ConnectionError:
            return  # it is gone already
        connection.settimeout(_FRAME_SECONDS)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _serve(self, connection: socket.socket) -> bool:
        """One request of `connection`. Returns whether there can be another."""
        try:
            try:
                frame = read_frame(connection)
            except FrameError as error:
                write_frame(connection, {"error": str(error), "hint": "the connection is closed"})
                return False
            if frame is None:
                return False
            write_frame(connection, *self._agent.answer(*frame))
        except OSError:
            return False  # the client vanished: there is nobody to tell
        return True


def _ready_port() -> str:
    """The character device of the virtio port that the host waits at. Raises `FileNotFoundError`."""
    named = f"/dev/virtio-ports/{READY_PORT}"  # made by udev, where there is one
    if os.path.exists(named):
        return named
    ports = "/sys/class/virtio-ports"
    for port in os.listdir(ports) if os.path.exists(ports) else []:
        with open(f"{ports}/{port}/name") as file:
            if file.read().strip() == READY_PORT:
                return f"/dev/{port}"
    raise FileNotFoundError(f"there is no virtio port {READY_PORT}: QEMU was started without it")


def main(arguments: list[str]) -> None:
    """`agent [PAYLOAD [PORT [FILE]]]`: FILE takes the line that says READY, in place of the virtio port."""
    payload = arguments[0] if arguments else "/payload"
    port = int(arguments[1]) if len(arguments) > 1 else PORT
    ready = os.open(arguments[2] if len(arguments) > 2 else _ready_port(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    agent = Agent(payload, KernelLog(kernel.open_kernel_log()), mark=lambda: _tell(ready, MARK))
    agent.prepare()
    server = Server(agent, port)
    os.write(ready, f"READY {json.dumps(agent.hello() | {'port': server.port})}\n".encode())
    os.set_blocking(ready, False)
    server.serve_forever()


def _tell(port: int, line: bytes) -> None:
    try:  # noqa: SIM105  contextlib would have to be imported
        os.write(port, line)
    except BlockingIOError:
        pass  # nobody reads it


if __name__ == "__main__":
    main(sys.argv[1:])
