# SPDX-License-Identifier: GPL-2.0-only
"""Hears what the module tells over generic netlink: kmod/netlink/hmm-harness.yaml describes the family.

Nothing is understood here: the messages go to the host as they came, which reads them ten times faster
(harness/target/events.py). Importing pyroute2 takes seconds under emulation, so this is imported before a VM is
saved, and else when the first program asks for events.
"""

from __future__ import annotations

import errno
import socket
import struct

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from harness.guest.kernel import AgentError

# hmm_harness_netlink.h; a test compares them
FAMILY = "hmm-harness"
VERSION = 1
SUBSCRIBE = 2
UNSUBSCRIBE = 3

# 100,000 events are some 20 MB of the kernel's buffers; memory that is used only when they come.
_ROOM = 96 << 20
_MOST_BYTES = 48 << 20  # of a program's events; an answer of the agent holds no more
_DATAGRAM = 1 << 16  # kernel messages are smaller
_PATIENCE = 10.0  # seconds, for an answer of the kernel
_HEAD = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ERROR = 2  # NLMSG_ERROR
_RCVBUFFORCE = 33  # asm-generic/socket.h


class _RefusedError(AgentError):
    """The kernel answers with the errno `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the module's events: {errno.errorcode.get(code, code)}")
        self.code = code


class Listener:
    """A socket that can subscribe. Raises `AgentError` if the module tells no events."""

    def __init__(self) -> None:
        self._sequence = 0
        self._open()

    def _open(self) -> None:
        self._socket = GenericNetlinkSocket()
        try:
            self._socket.bind(FAMILY, genlmsg)
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM // 2)  # the kernel doubles it
            self._socket.settimeout(_PATIENCE)
        except (NetlinkError, OSError) as error:
            self._socket.close()
            raise AgentError(f"no events can be heard: {error}", "is the module hmm_harness loaded?") from error

    def close(self) -> None:
        """Lets the socket go, and what it is subscribed to."""
        self._socket.close()

    def begin(self) -> bytes:
        """Subscribes. Returns the answer, which has the number of the last event before. Raises `AgentError`.

        A module that was loaded anew is another family, although of the same name.
        """
        try:
            return self._ask(SUBSCRIBE)
        except _RefusedError as error:
            if error.code != errno.ENOENT:
                raise
            self.close()
            self._open()
            return self._ask(SUBSCRIBE)

    def end(self) -> bytes:
        """Unsubscribes. Returns all messages since, the answer, which has the number of the last event, at the end.

        What is lost on the way is missing among the numbers, the answer too perhaps.
        """
        return self._ask(UNSUBSCRIBE)

    def _ask(self, command: int) -> bytes:
        self._sequence += 1
        message = genlmsg()
        message["cmd"] = command
        message["version"] = VERSION
        message["header"]["type"] = self._socket.prid
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
        message["header"]["sequence_number"] = self._sequence
        message["header"]["pid"] = 0
        message.encode()
        self._socket.sendto(message.data, (0, 0))
        return self._collect()

    def _collect(self) -> bytes:
        """Everything up to the acknowledgement, without that."""
        heard = bytearray()
        while True:
            try:
                datagram = self._socket.recv(_DATAGRAM)
            except TimeoutError:
                raise AgentError("the kernel does not answer on the events' socket") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # there was no room: a gap in the numbers
                raise
            _, kind, _, sequence, _ = _HEAD.unpack_from(datagram)
            if kind == _ERROR and sequence == self._sequence:
                (code,) = struct.unpack_from("=i", datagram, _HEAD.size)
                if code:
                    raise _RefusedError(-code)
                return bytes(heard)
            if len(heard) + len(datagram) <= _MOST_BYTES:
                heard += datagram
