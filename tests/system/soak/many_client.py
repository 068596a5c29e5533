"""The client of ``many``: bare sockets and one epoll set, so that a million echoes take a minute.

Started by channel.child() with a descriptor; takes the orders "open", "echo" and "close", one after
the other, and reports its progress."""

from __future__ import annotations

import errno
import heapq
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

from tests.system.soak.channel import Channel
from tests.system.soak.content import Content
from tests.system.soak.figures import raise_descriptor_limit

MESSAGE_BYTES = 64
# So many addresses that their ports suffice for all connections and those that linger.
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 17)]
# How many connections are being made at once: far fewer than the server's backlog.
WINDOW = 200
TELL_S = 0.5
PAUSE_S = 1.0
LINGER_NONE = struct.pack("ii", 1, 0)


class Connection:
    """One connection, and what it echoes: message after message of its stream."""

    __slots__ = ("content", "fd", "got", "left", "offset", "sock", "state", "wanted")

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.content = Content("many", number)
        self.offset = 0
        self.left = 0
        self.wanted = b""
        self.got = b""
        self.state = "connecting"


class Client:
    """The client: opens connections, echoes over them and closes them, as the channel orders."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.numbers = 0
        self.port = 0
        self.told_at = 0.0
        self.rng = random.Random(1)
        self.figures: dict[str, Any] = {
            "opened": 0,
            "echoes": 0,
            "churned": 0,
            "wrong": 0,
            "refused": 0,
            "broken": 0,
            "first": "",
        }

    def run(self) -> None:
        """Take orders until the program is gone."""
        while (received := self.channel.receive()) is not None:
            order = received[0]
            if order["order"] == "open":
                self.port = order["port"]
                self.open(order["connections"])
            elif order["order"] == "echo":
                self.figures["echoes"] = 0
                self.echo(order["echoes"], order["churn"])
            else:
                self.close()
            self.tell(done=True)

    def tell(self, done: bool = False) -> None:
        """Tell how far it is, now and then or because it is *done*."""
        now = time.monotonic()
        if done or now - self.told_at > TELL_S:
            self.told_at = now
            self.channel.send({**self.figures, "done": done})

    def failed(self, what: str, words: str) -> None:
        """Count a failure of kind *what*, and keep the first."""
        self.figures[what] += 1
        self.figures["first"] = self.figures["first"] or words

    def connect(self) -> Connection:
        """Begin a connection."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        self.numbers += 1
        connection = Connection(sock, self.numbers)
        error = sock.connect_ex((ADDRESSES[self.numbers % len(ADDRESSES)], self.port))
        if error not in (0, errno.EINPROGRESS):
            self.failed("refused", os.strerror(error))
        self.epoll.register(connection.fd, select.EPOLLOUT)
        self.connections[connection.fd] = connection
        return connection

    def connected(self, connection: Connection) -> bool:
        """Take note of the end of a connect(); return whether there is a connection."""
        error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.failed("refused", f"connecting: {os.strerror(error)}")
            self.forget(connection)
            return False
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.state = "open"
        self.epoll.modify(connection.fd, select.EPOLLIN)
        self.figures["opened"] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """Close a connection."""
        del self.connections[connection.fd]
        connection.sock.close()

    def open(self, count: int) -> None:
        """Make *count* connections."""
        begun = connecting = 0
        while begun < count or connecting:
            while begun < count and connecting < WINDOW:
                self.connect()
                begun += 1
                connecting += 1
            for fd, _ in self.epoll.poll(1.0):
                if fd in self.connections:
                    connecting -= 1
                    self.connected(self.connections[fd])
            self.tell()

    def say(self, connection: Connection) -> None:
        """Send the next message."""
        connection.wanted = connection.content.piece(connection.offset, MESSAGE_BYTES)
        connection.offset += MESSAGE_BYTES
        connection.sock.send(connection.wanted)

    def echo(self, echoes: int, churn: int) -> None:
        """Have all connections say *echoes* messages each, and *churn* others come and go
        meanwhile."""
        busy = 0
        for connection in list(self.connections.values()):
            connection.left = echoes
            self.say(connection)
            busy += 1
        figures, connections, poll = self.figures, self.connections, self.epoll.poll
        # When those that come and go are to come again.
        coming = [time.monotonic() + self.rng.random() * PAUSE_S for _ in range(churn)]
        heapq.heapify(coming)
        while busy:
            for fd, _ in poll(0.05, 512):
                connection = connections.get(fd)
                if connection is None:
                    continue
                if connection.state == "connecting":
                    if self.connected(connection):
                        connection.state = "churn"
                        self.say(connection)
                    else:
                        heapq.heappush(coming, time.monotonic() + PAUSE_S)
                    continue
                try:
                    data = connection.sock.recv(4096)
                except BlockingIOError:
                    continue
                except OSError as error:
                    data = b""
                    self.failed("broken", f"recv: {error}")
                if connection.state == "ending":
                    # The server has closed as well.
                    if data:
                        self.failed("wrong", f"{data!r} after the last echo")
                    self.forget(connection)
                    heapq.heappush(coming, time.monotonic() + self.rng.random() * PAUSE_S)
                    continue
                if not data:
                    self.failed("broken", "the server has closed a connection that echoes")
                    busy -= connection.state == "open"
                    self.forget(connection)
                    continue
                if connection.got:
                    data = connection.got + data
                if data != connection.wanted:
                    if len(data) < MESSAGE_BYTES and connection.wanted.startswith(data):
                        connection.got = data
                        continue
                    self.failed(
                        "wrong",
                        connection.content.complaint(connection.offset - MESSAGE_BYTES, data)
                        or f"too much: {data!r}",
                    )
                connection.got = b""
                if connection.state == "churn":
                    figures["churned"] += 1
                    self.leave(connection, coming)
                    continue
                figures["echoes"] += 1
                connection.left -= 1
                if connection.left:
                    self.say(connection)
                else:
                    busy -= 1
            now = time.monotonic()
            while coming and coming[0] < now:
                heapq.heappop(coming)
                self.connect()
            self.tell()

    def leave(self, connection: Connection, coming: list[float]) -> None:
        """End a connection that has echoed once: by a reset, or by a close that the server has to
        answer."""
        if self.rng.random() < 0.5:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            self.forget(connection)
            heapq.heappush(coming, time.monotonic() + self.rng.random() * PAUSE_S)
        else:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.state = "ending"

    def close(self) -> None:
        """Close all connections, every fourth of them by a reset."""
        for number, connection in enumerate(list(self.connections.values())):
            if number % 4 == 0:
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            self.forget(connection)


def main() -> None:
    """Run until the program closes its end."""
    raise_descriptor_limit()
    Client(Channel(socket.socket(fileno=int(sys.argv[1])))).run()


if __name__ == "__main__":
    main()
