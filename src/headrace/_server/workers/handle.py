"""WorkerHandle: one worker as its supervisor knows it: the process, what it says, and what it is
told."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import logging
import multiprocessing.util
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from headrace._server.log import logger
from headrace._server.shutdown import ABORT_SECONDS, CANCEL_SECONDS, ShutdownReport
from headrace._server.statistics import Statistics
from headrace._server.workers.worker import Setup, main
from headrace._streams.connect import open_unix_connection

# How long a new process may take until it accepts: it imports the program first.
START_SECONDS = 60.0
# How much longer than its shutdown may take a worker is waited for, in seconds, before it is
# killed.
PATIENCE_SECONDS = 2.0
# How long what a process has said at last may take to arrive. (A process that it has forked may
# keep its end open for ever.)
LAST_WORDS_SECONDS = 1.0
# More than a worker's longest message: see worker.Forward.
MESSAGE_BYTES = 2**24


class Said(enum.Enum):
    """What a worker has said of itself."""

    NOTHING = "nothing"
    READY = "ready"
    LEAVING = "leaving"


class Process(enum.Enum):
    """What has become of the process of a worker."""

    RUNNING = "running"
    ENDED = "ended"
    # It has ended, and its last words were heard.
    GONE = "gone"


class Role(enum.Enum):
    """What the supervisor has a worker for."""

    # A renewal waits for it to be ready.
    CANDIDATE = "candidate"
    # It is the one of its place.
    SERVING = "serving"
    # It was told to leave, or leaves.
    RETIRED = "retired"


State = Said | Process | Role

# What may follow on what; docs/internals/server.md draws it. The three know nothing of one another:
# a process may end before it has said anything, and say something after it has ended.
MOVES: dict[State, set[State]] = {
    Said.NOTHING: {Said.READY, Said.LEAVING},
    Said.READY: {Said.LEAVING},
    Said.LEAVING: set(),
    Process.RUNNING: {Process.ENDED},
    Process.ENDED: {Process.GONE},
    Process.GONE: set(),
    Role.CANDIDATE: {Role.SERVING, Role.RETIRED},
    Role.SERVING: {Role.RETIRED},
    Role.RETIRED: set(),
}


class WorkerHandle:
    """Starts a process that serves as *setup* says; *control* is our end of the pair of which
    *setup* has the other. *on_change* is called in a turn of its own with the handle and what it
    has said, or what has become of its process."""

    def __init__(
        self,
        place: int,
        role: Role,
        setup: Setup,
        control: socket.socket,
        on_change: Callable[[WorkerHandle, State], None],
    ) -> None:
        self.place = place
        self.said = Said.NOTHING
        self.process = Process.RUNNING
        self.role = role
        self.statistics: Statistics | None = None
        self.report: ShutdownReport | None = None
        # Whether the supervisor has its figures among those of the past.
        self.counted = False
        self._killed = False
        self._on_change = on_change
        self._loop = loop = asyncio.get_running_loop()
        self.began = self.heard_at = loop.time()
        # To be waited for: that it is ready, or cannot be any more; and that it is gone.
        self.ready = loop.create_future()
        self.gone = loop.create_future()
        # Not a fork: the program may have threads, and a new worker has to read it anew.
        self._child = multiprocessing.get_context("spawn").Process(
            target=main, args=(setup,), name=f"{setup.options.name} {place}"
        )
        try:
            # It inherits that: Ctrl-C, while it imports the program, is nothing to be told of in
            # tracebacks.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                self._child.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except BaseException:
            control.close()
            raise
        finally:
            setup.control.close()
        # Known also when the process is gone.
        self.pid = self._child.pid
        self.status: int | None = None
        self._control = control
        self._writer: Any = None
        self._orders: list[bytes] = []
        self._talk = loop.create_task(self._listen())
        # Before multiprocessing waits for its processes, when the program ends without a shutdown.
        multiprocessing.util.Finalize(self, _hang_up, args=(control,), exitpriority=0)
        # Not only the sentinel, a pipe: whatever the process has forked keeps that open.
        try:
            # it is running
            self._watched = os.pidfd_open(self._child.pid)  # type: ignore[arg-type]
        except (AttributeError, OSError):  # not Linux, or out of descriptors
            self._watched = os.dup(self._child.sentinel)
        loop.add_reader(self._watched, self._on_exit)

    def move(self, state: State) -> None:
        """Be in *state* from now on, on the axis that it is one of: the only way that they
        change."""
        axis = type(state).__name__.lower()
        before = getattr(self, axis)
        assert state in MOVES[before], f"{before} cannot be followed by {state}"
        setattr(self, axis, state)
        if state is Said.READY and not self.ready.done():
            self.ready.set_result(None)
        elif state is Process.GONE:
            if not self.ready.done():
                self.ready.set_exception(self._not_started())
                self.ready.exception()  # a waiter is told; without one, nothing is logged
            self.gone.set_result(None)
        if not isinstance(state, Role):
            self._loop.call_soon(self._on_change, self, state)

    async def _listen(self) -> None:
        """Take what the worker tells."""
        reader, self._writer = await open_unix_connection(sock=self._control, limit=MESSAGE_BYTES)
        self._writer.writelines(self._orders)
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                if not line.endswith(b"\n"):
                    break  # it was killed while it said that
                self.heard_at = self._loop.time()
                self._take(json.loads(line))
        self._writer.close()

    def _take(self, told: dict[str, Any]) -> None:
        if "ready" in told:
            self.move(Said.READY)
        elif "leaving" in told:
            self.move(Said.LEAVING)
        elif "statistics" in told:
            self.statistics = Statistics(**told["statistics"])
        elif "report" in told:
            self.report = ShutdownReport(**told["report"])
        elif "record" in told:
            record = logging.makeLogRecord(told["record"])
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self._child.join()
        self.status = self._child.exitcode
        self._child.close()
        self.move(Process.ENDED)
        # What it has said at last may still be on its way.
        self._loop.create_task(self._tell_gone()).add_done_callback(lambda task: task.result())

    async def _tell_gone(self) -> None:
        await asyncio.wait([self._talk], timeout=LAST_WORDS_SECONDS)
        self._talk.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self.move(Process.GONE)

    @property
    def accepting(self) -> bool:
        """Whether it accepts, as far as it is known here."""
        return (
            self.said is Said.READY
            and self.process is Process.RUNNING
            and self.role is Role.SERVING
        )

    async def accepts(self) -> None:
        """Wait until it accepts. Raises: RuntimeError where it does not."""
        try:
            async with asyncio.timeout_at(self.began + START_SECONDS):
                await asyncio.shield(self.ready)
        except TimeoutError:
            raise RuntimeError(
                f"a worker did not start: it does not accept after {START_SECONDS} s"
            ) from None
        self.check()

    def check(self) -> None:
        """Raise RuntimeError where it has ended already."""
        if self.process is Process.GONE:
            raise self._not_started()

    def _not_started(self) -> RuntimeError:
        return RuntimeError(f"a worker did not start: its process ended with status {self.status}")

    def order(self, **what: Any) -> None:
        """Tell the worker what to do."""
        line = json.dumps(what).encode() + b"\n"
        if self._writer is None:
            self._orders.append(line)
        else:
            self._writer.write(line)

    def stop(self, grace: float, replaced: bool = False) -> None:
        """Have the worker shut down, and kill it if it does not; one that is *replaced* leaves
        what it has no room for in the queues."""
        self.retire()
        self.order(shutdown=grace, replaced=replaced)
        self.expect_end(grace)

    def retire(self) -> None:
        """It is not the worker of its place any more, nor is to be."""
        if self.role is not Role.RETIRED:
            self.move(Role.RETIRED)

    def hurry(self) -> None:
        """Have it go on with its shutdown, and kill it if it does not."""
        self.order(hurry=True)
        self.expect_end(0)

    def expect_end(self, grace: float) -> None:
        """Kill it if it is still there when such a shutdown is over."""
        self._loop.call_later(
            grace + CANCEL_SECONDS + ABORT_SECONDS + PATIENCE_SECONDS,
            self.kill_aloud,
            "does not end",
        )

    def expect_start(self) -> None:
        """Kill it if it does not accept in time."""
        self._loop.call_later(START_SECONDS, self._expect_ready)

    def _expect_ready(self) -> None:
        if self.said is Said.NOTHING:
            self.kill_aloud("does not start")

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self.process is Process.RUNNING:
            self._child.kill()

    def kill_aloud(self, why: str) -> None:
        """Kill it, if it is still there, and say why."""
        if self.process is Process.RUNNING and not self._killed:
            self._killed = True
            logger.error("worker %d %s, and is killed", self.pid, why)
            self.kill()


def _hang_up(control: socket.socket) -> None:
    """Have the worker at the other end of *control* shut down."""
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)
