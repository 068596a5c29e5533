"""The child process of ``chaos``: bare sockets, a thread each, that do what their role says and
check every byte.

Started by channel.child() with a descriptor, the seed, the one script for all or -1, how many
seconds nothing may happen, and a directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections import Counter, deque
from typing import Any

from tests.system.soak.channel import Channel
from tests.system.soak.content import Content
from tests.system.soak.judge import name_of
from tests.system.soak.plan import Plan, other

LOOPBACK = "127.0.0.1"
HELLO = struct.Struct("!I")
LINGER_NONE = struct.pack("ii", 1, 0)
SMALL_BYTES = 4096
# How long one that floods goes on without reading, when it can send nothing any more: the other end
# may be waiting for just that.
STUBBORN_S = 1.0


class Stuck(Exception):
    """Nothing has happened for too long."""


class Peer:
    """One end of a connection, a bare socket."""

    def __init__(self, plan: Plan, side: str, sock: socket.socket, patience_s: float) -> None:
        self.role = plan.roles[side]
        self.sock = sock
        self.patience_s = patience_s
        self.rng = random.Random(f"{plan.script}:{side}:peer")
        self.out = Content(plan.script, plan.number, side)
        self.into = Content(plan.script, plan.number, other(side))
        self.tcp = plan.by == "tcp"
        self.sent = self.received = 0
        # How much of it the system of the other end has: of what was sent before a reset, this
        # arrives.
        self.acknowledged = 0
        self.read_end = self.write_error = self.stuck = ""
        self.wrong: list[str] = []
        self.operations: Counter[str] = Counter()
        self.history: deque[str] = deque(maxlen=60)
        self.began = time.monotonic()
        self.urgent_at = self.rng.randint(0, self.role.total) if self.role.urgent == "once" else -1

    def run(self) -> dict[str, Any]:
        """Play the role to its end; return its story."""
        try:
            self.sock.setblocking(False)
            self._play()
        except Stuck:
            self.stuck = f"nothing happened for {self.patience_s:.0f} s"
        finally:
            self.sock.close()
        names = ("sent", "received", "acknowledged", "read_end", "write_error", "stuck")
        told = {name: getattr(self, name) for name in names}
        # Enough to understand a failure, and no more than a packet takes.
        return told | {
            "wrong": self.wrong[:10],
            "operations": self.operations,
            "history": list(self.history),
        }

    def _note(self, what: str) -> None:
        self.operations[what] += 1
        self.history.append(
            f"{time.monotonic() - self.began:.3f} {what} sent={self.sent} received={self.received}"
        )

    def _play(self) -> None:
        role = self.role
        poller = select.poll()
        slow = role.slow
        reads_from = time.monotonic() + (slow if role.style == "stall" else 0)
        finished = False  # its own writing
        deaf = False
        blocked_since = 0.0
        idle_since = time.monotonic()
        while True:
            now = time.monotonic()
            if self._is_due(finished) and not deaf:
                if role.ending != "deaf":
                    self._end()
                    return
                deaf = True
                self.sock.shutdown(socket.SHUT_RD)
                self._note("shutdown(SHUT_RD)")
            if (self.sent >= role.total or self.write_error) and not finished:
                finished = True
                self._half_close(deaf)
                if deaf:
                    return
            if finished and self.read_end:
                self._note("close")
                return
            if deaf and blocked_since and now - blocked_since > STUBBORN_S:
                self._note("close, deaf")
                return
            flooding = (
                role.style == "flood"
                and not finished
                and not (blocked_since and now - blocked_since > STUBBORN_S)
            )
            wants_read = not self.read_end and not flooding and now >= reads_from and not deaf
            wants_write = not finished
            poller.register(
                self.sock,
                (select.POLLIN if wants_read else 0) | (select.POLLOUT if wants_write else 0),
            )
            # A descriptor that is in error is always ready.
            ready = dict(poller.poll(50))
            events = ready.get(self.sock.fileno(), 0)
            moved = False
            if wants_read and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                moved = self._read(slow > 0 and role.style == "trickle")
                if slow > 0 and role.style == "trickle":
                    pause = self.rng.uniform(0.002, 0.02)
                    slow -= pause
                    time.sleep(pause)
            if wants_write and events & (select.POLLOUT | select.POLLHUP | select.POLLERR):
                if self._write():
                    moved, blocked_since = True, 0.0
            elif wants_write:
                blocked_since = blocked_since or now
            if moved:
                idle_since = now
            elif now - idle_since > self.patience_s:
                raise Stuck
            elif events & (select.POLLHUP | select.POLLERR) and not wants_read:
                time.sleep(0.005)  # else it would spin until it reads again

    def _is_due(self, finished: bool) -> bool:
        """Tell whether the ending that is the last thing it does has come."""
        role = self.role
        if role.ending == "eof":
            return False
        done = {"all": self.sent, "write": self.sent, "read": self.received}[role.trigger]
        wanted = role.total if role.trigger == "all" else role.at
        return (
            done >= wanted
            or (role.trigger != "read" and bool(self.write_error))
            or (role.trigger == "read" and bool(self.read_end))
        )

    def _half_close(self, deaf: bool) -> None:
        if self.role.ending == "eof" and not self.write_error:
            try:
                self.sock.shutdown(socket.SHUT_WR)
                self._note("shutdown(SHUT_WR)")
            except OSError as error:
                self.write_error = name_of(error)
        if deaf:
            self._note("close, deaf")

    def _end(self) -> None:
        """Close, or reset."""
        if self.rng.random() < 0.5:
            until = time.monotonic() + 0.2
            while self._unacknowledged() and time.monotonic() < until:
                time.sleep(0.002)
        self.acknowledged = self.sent - self._unacknowledged()
        if self.role.ending == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self._note(self.role.ending)

    def _unacknowledged(self) -> int:
        """Return how much of what was sent the other end's system does not have: nothing where
        there is no network between."""
        if not self.tcp:
            return 0
        return struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]

    def _read(self, trickle: bool) -> bool:
        size = 1 if trickle else self.rng.choice((1, 100, 4096, 65536, 262144))
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return False
        except OSError as error:
            self.read_end = name_of(error)
            self._note(f"recv: {self.read_end}")
            return True
        if not data:
            self.read_end = "eof"
            self._note("recv: the end")
            return True
        complaint = self.into.complaint(self.received, data)
        if complaint:
            self.wrong.append(f"recv({size}) -> {len(data)}: {complaint}")
        self.received += len(data)
        self._note("recv of a byte" if trickle else "recv")
        return True

    def _write(self) -> bool:
        role = self.role
        flags = 0
        size = min(self.rng.choice((1, 10, 1000, 10_000, 100_000, 300_000)), role.total - self.sent)
        try:
            if 0 <= self.urgent_at <= self.sent:
                self.sock.send(b"!", socket.MSG_OOB)
                self.urgent_at = -1
                self._note("send, urgent")
            if size <= 0:
                return False
            if role.urgent == "inline" and self.rng.random() < 0.2:
                size, flags = min(size, 1000), socket.MSG_OOB
            self.sent += self.sock.send(self.out.piece(self.sent, size), flags)
        except BlockingIOError:
            return False
        except OSError as error:
            self.write_error = name_of(error)
            self._note(f"send: {self.write_error}")
            return True
        self._note("send, urgent" if flags else "send")
        return True


class Peers:
    """The listening sockets, and a thread for each connection."""

    def __init__(
        self, channel: Channel, seed: int, only: int, patience_s: float, directory: str
    ) -> None:
        self.channel = channel
        self.seed = seed
        self.only = None if only < 0 else only
        self.patience_s = patience_s
        self.lock = threading.Lock()
        self.listeners = {
            name: socket.create_server((LOOPBACK, 0), backlog=512) for name in ("tcp", "small")
        }
        self.listeners["small"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        self.listeners["unix"] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listeners["unix"].bind(f"{directory}/peer")
        self.listeners["unix"].listen(512)

    def run(self) -> None:
        """Take orders until the program is gone."""
        for each in self.listeners.values():
            threading.Thread(target=self._accept, args=(each,), daemon=True).start()
        self._tell(
            {"listening": {name: each.getsockname() for name, each in self.listeners.items()}}
        )
        while (received := self.channel.receive()) is not None:
            order, descriptors = received
            arguments = (self._plan(order["number"]), order.get("address"), descriptors)
            threading.Thread(target=self._obey, args=arguments, daemon=True).start()

    def _plan(self, number: int) -> Plan:
        return Plan(self.seed, number, self.only)

    def _tell(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.channel.send(message)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=self._greet, args=(sock,), daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        """Serve what connected to us: it says its number first."""
        sock.settimeout(self.patience_s)
        try:
            hello = sock.recv(HELLO.size, socket.MSG_WAITALL)
            if len(hello) < HELLO.size:
                sock.close()
                return
            sock.sendall(hello)
        except OSError:
            sock.close()
            return
        self._play(self._plan(HELLO.unpack(hello)[0]), "s", sock)

    def _obey(self, plan: Plan, address: Any, descriptors: list[int]) -> None:
        """Serve the descriptor that we were given, or connect to *address*."""
        if descriptors:
            self._play(
                plan,
                "s" if plan.roles["s"].kind == "plain" else "c",
                socket.socket(fileno=descriptors[0]),
            )
            return
        try:
            sock = self._connect(plan, address)
        except OSError as error:
            self._tell({"number": plan.number, "side": "c", "cut": name_of(error)})
            return
        self._play(plan, "c", sock)

    def _connect(self, plan: Plan, address: Any) -> socket.socket:
        role = plan.roles["c"]
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        until = time.monotonic() + self.patience_s
        while True:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                if role.small:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
                sock.settimeout(self.patience_s)
                sock.connect(address if isinstance(address, str) else tuple(address))
                hello = HELLO.pack(plan.number)
                sock.sendall(hello)
                answer = sock.recv(HELLO.size, socket.MSG_WAITALL)
                if answer != hello:
                    raise ConnectionResetError(errno.ECONNRESET, f"the answer was {answer!r}")
            except OSError as error:
                sock.close()
                # The server is being started again.
                if (
                    isinstance(error, (ConnectionRefusedError, FileNotFoundError))
                    and time.monotonic() < until
                ):
                    time.sleep(0.02)
                    continue
                raise
            return sock

    def _play(self, plan: Plan, side: str, sock: socket.socket) -> None:
        report = Peer(plan, side, sock, self.patience_s).run()
        self._tell({"number": plan.number, "side": side, **report})


def main() -> None:
    """Run until the program closes its end."""
    descriptor, seed, only, patience_s, directory = sys.argv[1:]
    sys.setswitchinterval(0.001)
    Peers(
        Channel(socket.socket(fileno=int(descriptor))),
        int(seed),
        int(only),
        float(patience_s),
        directory,
    ).run()
    os._exit(0)  # whatever its threads wait for


if __name__ == "__main__":
    main()
