"""Servers of serve() for tests of what they bound: a handler that notes what becomes of it, and
plain sockets for clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from support.connections import LOOPBACK, receive, until

import headrace

# A timeout that has to be waited for.
SHORT = 0.08
# More than the sockets of a connection hold.
LARGE = 8 << 20


class Handler:
    """Counts how many of it run, ran at once, and were started; ``told`` is what the server told
    them. *work* is what each does."""

    def __init__(self, work=lambda reader, writer: reader.read()):
        self.work = work
        self.running = self.most = self.started = 0
        self.told = []

    async def __call__(self, reader, writer):
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.work(reader, writer)
        except ConnectionAbortedError as error:
            self.told.append(str(error))
        finally:
            self.running -= 1


async def echo_lines(reader, writer):
    """Send back each line."""
    while line := await reader.readline():
        writer.write(line)


async def send_much(reader, writer):
    """Send more than any socket holds."""
    writer.write(bytes(LARGE))
    await writer.drain()


def serve(handler, **options):
    return headrace.serve(handler, LOOPBACK, 0, **options)


async def connected(address, receive_buffer=None):
    """Return a plain socket that is connected to *address*, or to the first address of a server."""
    if isinstance(address, headrace.StreamServer):
        address = address.sockets[0].getsockname()
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


async def ask(address, request=b""):
    """Return all that a server answers to *request*, the end of which it sees."""
    with await connected(address) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, request)
        sock.shutdown(socket.SHUT_WR)
        return await receive(sock)


async def greeted(server):
    """Return a plain socket that is connected to *server*, whose handler has said "hi"."""
    sock = await connected(server)
    assert await receive(sock, 2) == b"hi"
    return sock


class Clients(contextlib.AsyncExitStack):
    """Plain sockets that are connected to *server*, and closed at the end."""

    def __init__(self, server):
        super().__init__()
        self.address = server.sockets[0].getsockname()

    def dial(self, source=None, receive_buffer=None):
        sock = self.enter_context(
            socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        )
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            sock.bind((source, 0))
        sock.connect(self.address)
        sock.setblocking(False)
        return sock


async def answers(sock, line=b"still here\n"):
    """Tell whether *line* comes back."""
    sock.send(line)
    return await receive(sock, len(line)) == line


def take(sock):
    """Return what takes a piece of what has come to *sock*."""

    def some():
        with contextlib.suppress(BlockingIOError):
            sock.recv(65536)

    return some


async def ended(server, count=1):
    """Wait until the server has ended *count* connections; return how many for which reason."""
    await until(lambda: sum(server.statistics().ended.values()) >= count)
    return server.statistics().ended


@contextlib.asynccontextmanager
async def repeated(call, seconds=0.01):
    """Call call() again and again inside the block."""

    async def repeat():
        while True:
            call()
            await asyncio.sleep(seconds)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Greeter:
    """A handler that says "hi" and waits for the end of its peer; ``ends`` tells how handlers
    ended."""

    def __init__(self):
        self.ends = []

    async def __call__(self, reader, writer):
        try:
            writer.write(b"hi")
            await reader.read()
            self.ends.append("finished")
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            writer.write(b"sorry")
            raise
        except OSError as error:
            self.ends.append(str(error))
            raise


async def stubborn(reader, writer):
    """A handler that cannot be cancelled, and ends when its connection is gone."""
    writer.write(b"hi")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await reader.read()
            return


@contextlib.asynccontextmanager
async def started(handler, **options):
    """A server that has started; it is the test's to shut it down."""
    server = headrace.serve(handler, LOOPBACK, 0, **options)
    await server.start()
    yield server
    await server.shutdown(0)


def figures(report):
    """Return how many connections ended how."""
    return report.finished, report.cancelled, report.aborted, report.stuck
