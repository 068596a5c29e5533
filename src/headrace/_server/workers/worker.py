"""A worker: one process of serve(workers=…), which serves on sockets that its supervisor has bound.

Supervisor and worker talk in lines of JSON over a socket pair. Worker: {"ready": true},
{"statistics": …} every second and at the end, {"report": …}, {"record": …} for the log. Supervisor:
{"shutdown": seconds}, {"hurry": true}, {"cover": place}, {"uncover": place}. Where the supervisor
is gone, so is its end of the pair: the worker then shuts down too.

Every worker has the sockets of all places, and accepts from those of its own. {"cover": place} has
it accept from another's as well, while no other worker does; {"uncover": place} ends that, and
leaves what waits there to the new one. What waits in a queue is lost when the last process that has
the socket closes it, so each empties all before it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from headrace._server.endpoints import Inherited
from headrace._server.log import logger
from headrace._server.options import Handler, Options
from headrace._server.server import LocalServer
from headrace._server.shutdown import Shutdown, ShutdownReport
from headrace._streams.connect import open_unix_connection
from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace._transport.acceptor import Acceptor

# How often the supervisor hears what a worker has done, in seconds.
STATISTICS_SECONDS = 1.0
# Of one text in the log, in characters: peers may choose what is in it. And of what the supervisor
# has not taken yet: more is dropped.
TEXT_CHARACTERS = 65536
BACKLOG_BYTES = 2**20


@dataclass(frozen=True)
class Setup:
    """All that a worker has to know: it is sent to the new process, so everything in it can be
    pickled."""

    handler: Handler
    options: Options
    # The sockets of each place that it alone accepts from, and those that all do; which place is
    # this worker's.
    own: list[list[socket.socket]]
    shared: list[socket.socket]
    place: int
    control: socket.socket
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
    log_level: int


def main(setup: Setup) -> None:
    """Be a worker: what its process runs."""
    # Ctrl-C goes to every process of the terminal; the supervisor decides what it means. (Handlers
    # that do nothing: SIG_IGN would be inherited by what the program starts.) SIGHUP goes there too
    # when the terminal is closed.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # multiprocessing has made them inheritable; a program that a handler starts must not keep the
    # port.
    for sock in (*setup.shared, *itertools.chain(*setup.own), setup.control):
        sock.set_inheritable(False)
    with asyncio.Runner(loop_factory=setup.loop_factory) as runner:
        runner.run(work(setup))


async def work(setup: Setup) -> None:
    """Serve until the supervisor says otherwise, or SIGTERM."""
    loop = asyncio.get_running_loop()
    reader, writer = await open_unix_connection(sock=setup.control)
    # The program sets up logging in the supervisor's process, and expects it there.
    logger.setLevel(setup.log_level)
    logger.propagate = False
    logger.addHandler(Forward(writer))
    server = Worker(setup)
    async with server:
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        say(writer, ready=True)
        obeying = loop.create_task(obey(server, reader))
        telling = loop.create_task(tell(server, writer))
        await server.draining.wait()
        say(writer, leaving=True)
        report = await server.shutdown()
        obeying.cancel()
        telling.cancel()
        say(writer, statistics=asdict(server.statistics()))
        say(writer, report=asdict(report))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


class Worker(LocalServer):
    """The server of a worker, which can accept in the place of another."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(
            setup.handler, [Inherited(setup.own[setup.place] + setup.shared, None)], setup.options
        )
        self._others = {
            place: sockets for place, sockets in enumerate(setup.own) if place != setup.place
        }
        self._covers: dict[int, list[Acceptor]] = {}

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        await super()._open(loop)
        for place, sockets in self._others.items():
            self._covers[place] = [await self._acceptor(sock) for sock in sockets]
            for each in self._covers[place]:
                each.listen(self._options.backlog)
                each.hold()

    def cover(self, place: int) -> None:
        """Accept from the sockets of *place* too."""
        if not self.draining.is_set():
            for each in self._covers[place]:
                self._listeners.add(each)

    def uncover(self, place: int) -> None:
        """Leave the sockets of *place* to another worker."""
        for each in self._covers[place]:
            self._listeners.remove(each)

    def leave_queues(self, leave: bool) -> None:
        """Whether what it has no room for stays in the queues when it shuts down: its successor
        accepts from them."""
        self._listeners.alone = not leave

    def stop(self, grace: float | None = None) -> None:
        """Shut down, with the grace of serve() or this one."""
        self._begin_shutdown(grace)

    def hurry(self) -> None:
        """Go on with the shutdown."""
        self._hurry()

    def _say_how(self, report: ShutdownReport) -> None:
        """The supervisor says it, of all workers."""

    async def _stop(self, stopping: Shutdown) -> ShutdownReport:
        for each in itertools.chain(*self._covers.values()):
            self._listeners.add(each)
        return await super()._stop(stopping)


class Forward(logging.Handler):
    """Sends the server's records to the supervisor."""

    def __init__(self, writer: StreamWriter) -> None:
        super().__init__()
        self._writer = writer
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if self._writer.transport.get_write_buffer_size() > BACKLOG_BYTES:
            return  # the supervisor does not read, and memory is no place for it
        text = (
            None
            if record.exc_info is None
            else _cut(self._formatter.formatException(record.exc_info))
        )
        told = {
            name: value
            for name, value in record.__dict__.items()
            if name not in ("args", "exc_info")
        }
        say(self._writer, record={**told, "msg": _cut(record.getMessage()), "exc_text": text})


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= TEXT_CHARACTERS
        else f"{text[:TEXT_CHARACTERS]}… ({len(text)} characters)"
    )


async def obey(server: Worker, reader: StreamReader) -> None:
    """Do what the supervisor says."""
    try:
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                if not line.endswith(b"\n"):
                    break  # the supervisor was killed while it said that
                order = json.loads(line)
                if "shutdown" in order:
                    server.leave_queues(order["replaced"])
                    server.stop(order["shutdown"])
                elif "cover" in order:
                    server.cover(order["cover"])
                elif "uncover" in order:
                    server.uncover(order["uncover"])
                else:
                    server.hurry()
    finally:
        server.stop()


async def tell(server: LocalServer, writer: StreamWriter) -> None:
    """Tell the supervisor what was done so far, now and then."""
    with contextlib.suppress(ConnectionError):
        while True:
            say(writer, statistics=asdict(server.statistics()))
            await writer.drain()
            await asyncio.sleep(STATISTICS_SECONDS)


def say(writer: StreamWriter, **what: Any) -> None:
    """Send a message of this protocol."""
    writer.write(json.dumps(what, default=str).encode() + b"\n")
