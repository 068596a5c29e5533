"""Channel: messages between the program and its child process, one packet each, descriptors with
them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
MOST_BYTES = 150_000
DESCRIPTOR = struct.Struct("i")
GRACE_S = 5.0


class Channel:
    """One end of a SOCK_SEQPACKET pair. Sending waits where the other end is behind."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: dict[str, Any], descriptors: Iterable[int] = ()) -> None:
        """Send *message*, of what JSON knows, and copies of *descriptors*."""
        socket.send_fds(self.sock, [json.dumps(message).encode()], list(descriptors))

    def receive(self, wait: bool = True) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next message and its descriptors; None where the other end is gone. Raises:
        BlockingIOError where nothing is there."""
        try:
            # Not socket.recv_fds(), which ignores its flags (Python 3.13).
            flags = (
                socket.MSG_CMSG_CLOEXEC if wait else socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
            data, ancillary, _, _ = self.sock.recvmsg(
                MOST_BYTES, socket.CMSG_SPACE(4 * DESCRIPTOR.size), flags
            )
        except ConnectionResetError:
            return None
        descriptors = [
            each
            for _, kind, sent in ancillary
            if kind == socket.SCM_RIGHTS
            for (each,) in DESCRIPTOR.iter_unpack(sent)
        ]
        return (json.loads(data), descriptors) if data else None


@contextlib.contextmanager
def child(module: str, *arguments: object) -> Iterator[tuple[Channel, subprocess.Popen[bytes]]]:
    """Run ``python -m module FD arguments``, where FD is its end of the channel; at the end of the
    block it is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            command = [sys.executable, "-m", module, str(theirs.fileno()), *map(str, arguments)]
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                env=dict(os.environ),
            )
        try:
            yield Channel(ours), process
        finally:
            ours.close()  # which ends it
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
