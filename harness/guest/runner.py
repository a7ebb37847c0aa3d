# SPDX-License-Identifier: GPL-2.0-only
"""Keeps an executor at hand: bytes of a request in, bytes of the response out."""

from __future__ import annotations

import os
import struct

from harness.guest.kernel import AgentError

# wire.h, struct wire_outcome. Not through harness.abi: importing that takes a second in the guest, and this is
# all that the agent needs to know of the wire. A test compares it with the header.
OUTCOME = struct.Struct("<II Q 4Q")
UNKNOWN = 0xFFFFFFFFFFFFFFFF

_EXITS = {
    65: "the request is malformed; host and guest differ in their wire.h",
    69: "its module is not loaded, or made no device",
}


class Response:
    """What the executor answered: `data`, pages `in_use` per device (None if unknown), and the lines it printed."""

    def __init__(self, data: bytes, in_use: list[int | None], remarks: list[str]) -> None:
        self.data = data
        self.in_use = in_use
        self.remarks = remarks


def features(path: str) -> list[str]:
    """What the executor `path` found the kernel's system calls to do, by name. Raises `AgentError`."""
    answers, its_answers = os.pipe()
    try:
        pid = os.posix_spawn(
            path, [path, "features"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, its_answers, 1)]
        )
    except OSError as error:
        os.close(answers)
        raise AgentError(f"cannot start {path}: {error.strerror}", "rebuild the payload") from error
    finally:
        os.close(its_answers)
    with os.fdopen(answers) as file:
        names = file.read().split()
    _, status = os.waitpid(pid, 0)
    if status:
        raise AgentError(f"`{path} features` ended with status {status}")
    return names


class Executor:
    """The executor `path`, started when it is needed and again if it has died."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._pid: int | None = None
        self._input = -1
        self._output = -1
        self._errors = -1
        self._reported = 0  # bytes of its stderr

    def start(self) -> None:
        """Starts it if it does not run. Raises `AgentError`."""
        if self._pid is not None:
            return
        its_input, self._input = os.pipe()
        self._output, its_output = os.pipe()
        # Not a pipe: whatever it prints, it never waits for us.
        self._errors = os.memfd_create("executor's stderr")
        self._reported = 0
        actions = [
            (os.POSIX_SPAWN_DUP2, its_input, 0),
            (os.POSIX_SPAWN_DUP2, its_output, 1),
            (os.POSIX_SPAWN_DUP2, self._errors, 2),
        ]
        try:
            self._pid = os.posix_spawn(self.path, [self.path], os.environ, file_actions=actions)
        except OSError as error:
            for fd in (self._input, self._output, self._errors):
                os.close(fd)
            raise AgentError(f"cannot start {self.path}: {error.strerror}", "rebuild the payload") from error
        finally:
            os.close(its_input)
            os.close(its_output)

    def run(self, request: bytes) -> Response:
        """The response to one request; comes within its timeout and a few seconds.

        Raises `AgentError` if the executor dies instead of answering; the next call starts another.
        """
        self.start()
        try:
            view = memoryview(request)
            while view:
                view = view[os.write(self._input, view) :]
        except BrokenPipeError as error:
            raise self._death() from error
        head = self._read(OUTCOME.size)
        _, _, length, *in_use = OUTCOME.unpack(head)
        return Response(
            data=head + self._read(length - OUTCOME.size),
            in_use=[None if pages == UNKNOWN else pages for pages in in_use],
            remarks=self._remarks(),
        )

    def stop(self) -> None:
        """Ends it: it ends by itself at the end of its input."""
        if self._pid is not None:
            self._end()
            os.close(self._errors)

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = os.read(self._output, length - len(data))
            if not part:
                raise self._death()
            data += part
        return bytes(data)

    def _remarks(self) -> list[str]:
        """What it printed on stderr since the last call."""
        text = os.pread(self._errors, os.fstat(self._errors).st_size - self._reported, self._reported)
        self._reported += len(text)
        return text.decode(errors="replace").splitlines()

    def _end(self) -> int:
        os.close(self._input)
        os.close(self._output)
        assert self._pid is not None
        _, status = os.waitpid(self._pid, 0)
        self._pid = None
        return os.waitstatus_to_exitcode(status)

    def _death(self) -> AgentError:
        code = self._end()
        said = "; ".join(self._remarks()) or "nothing"
        os.close(self._errors)
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return AgentError(f"the executor ended {how} instead of answering, and said: {said}", _EXITS.get(code))
