"""Writes: the outgoing half of a Stream: who writes next, and what is gathered.

A write waits for room first and then accepts all of its pieces, in the task's own step. So one that
raises, or is cancelled, has not been accepted, and one that returns has been. Those who wait stand
in a queue, and only the first may go on: what is written leaves in the order of the calls.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headrace._streams.writer import Writer
from headrace._transport import backend
from headrace._transport import operation as operations
from headrace._transport import sender as senders
from headrace._transport import stream_protocol as protocols
from headrace._transport import timing as timings
from headrace._transport.operation import Kind, Operation, Waitable

WRITE = Kind("Stream.write")
FLUSH = Kind("Stream.flush")
# Waits as flush() does, and keeps its place until release(): nobody else writes meanwhile.
HOLD = Kind("Stream.flush")

# How much is gathered by corked() at most, in bytes: the high-water mark of a transport, above
# which a write has to wait for room.
GATHER_BYTES = 65536

# How often a flush looks below the loop's TLS, in seconds. Not measured.
LOOK_SECONDS = 0.005

# In the queue, the place of who holds it.
_HELD = object()


class Outgoing(Waitable):
    """What a Stream writes through: it takes pieces, at once or when there is room, and gathers
    what is written in corked() blocks."""

    def __init__(self, loop: Any, scheduler: Any) -> None:
        self._loop = loop
        self._h_scheduler = scheduler
        self.timing = None
        self.operations = 0
        self._corks = 0
        self._gathered = None
        self._gathered_bytes = 0

    def start(self, kind: Kind, pieces: Any, seconds: float) -> Any:
        """Return an awaitable that waits for room, or as *kind* says, for *seconds* at most, and
        writes *pieces* then."""
        raise NotImplementedError

    def send(self, pieces: Any) -> None:
        """Send *pieces*, or keep what cannot be sent."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Raise RuntimeError after write_eof()."""
        raise NotImplementedError

    def unsent(self) -> int:
        """Return how many accepted bytes the system has not taken."""
        raise NotImplementedError

    def sent(self) -> int:
        """Return how many bytes were accepted in all."""
        raise NotImplementedError

    def pass_on(self, size: int) -> None:
        """Count *size* bytes as accepted that were not sent by send()."""
        raise NotImplementedError

    def accept(self, pieces: Any) -> None:
        """Send *pieces*, or gather them, whatever waits."""
        if self._corks == 0:
            self.send(pieces)
            return
        self.check_open()
        chunks = [senders.as_bytes(each) for each in pieces]
        for chunk in chunks:
            self._gathered_bytes += len(chunk)
        if self._gathered is None:
            self._gathered = chunks
        else:
            self._gathered += chunks
        if self._gathered_bytes >= GATHER_BYTES:
            self.send_gathered()

    def send_gathered(self) -> None:
        """Send what was gathered, as one write."""
        gathered = self._gathered
        if gathered is not None:
            accepted = self.sent()
            self._gathered = None
            self._gathered_bytes = 0
            self.send(tuple(gathered))
            # A connection that is closed drops it uncounted, and it was accepted before.
            self.pass_on(accepted - self.sent())

    def cork(self) -> None:
        """Gather from now on; corks may stand within one another."""
        self._corks += 1

    def uncork(self) -> None:
        """Undo cork(); the last one sends what was gathered."""
        self._corks -= 1
        if self._corks == 0:
            self.send_gathered()


class Writes(Outgoing):
    """The queue of those who write by *writer*, one of ours whose flow control is ours."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        Outgoing.__init__(self, writer._loop, self.writer._h_scheduler)
        self._queue = None
        self._limits = None

    def start(self, kind: Kind, pieces: Any, seconds: float) -> Any:
        self.operations += 1
        operation = operations.start(self, kind, protocols.FRESH, pieces)
        timing = self.timing
        if timing is not None and (seconds != timings.NEVER or timing.deadlines):
            timing.bound(operation, seconds)
        return operation

    def send(self, pieces: Any) -> None:
        if len(pieces) == 1:
            self.writer._h_sender.write(pieces[0])
        else:
            self.writer._h_sender.write_pieces(pieces)

    def check_open(self) -> None:
        if self.writer._h_sender.ended:
            raise RuntimeError("Cannot call write() after write_eof()")

    def unsent(self) -> int:
        sender = self.writer._h_sender
        return self._gathered_bytes + sender.size + sender.transport.get_write_buffer_size()

    def sent(self) -> int:
        return self.writer._h_sender.written + self._gathered_bytes

    def pass_on(self, size: int) -> None:
        """Count *size* bytes that the system has sent past the writer: by sendfile or splice."""
        senders.pass_on(self.writer._h_sender, size)

    # ---- waiting

    def release(self) -> None:
        """Let others write again, after a HOLD."""
        self._queue.popleft()
        self._wake_next()

    def _h_attempt(self, operation: Operation) -> object:
        queue = self._queue
        if queue is None or len(queue) == 0:
            return self._try(operation)
        if queue[0] is not operation:
            return operations.PENDING
        try:
            result = self._try(operation)
        except BaseException:
            self._h_detach(operation)
            raise
        if result is None and queue[0] is operation:
            self._h_detach(operation)
        return result

    def _try(self, operation: Operation) -> object:
        """Do what *operation*, the first, is to do; return None, or PENDING or TURN."""
        if operation.bounds is not None:
            timings.check(operation)
        if operation.kind is not WRITE:
            return self._try_flush(operation)
        turn = self._check(operation)
        if turn is not None:
            return turn
        if self.writer._h_flow._paused:
            return operations.PENDING
        self.accept(operation.argument)
        # An operation may be kept to be used again, and what was written must not be.
        operation.argument = None
        return None

    def _check(self, operation: Operation) -> object:
        """Raise what broke the connection, or that it is closed; None while it is neither. The loop
        has a turn first, in which it may say why."""
        writer = self.writer
        writer._h_check_reader()
        if writer._h_sender.has_ended():
            if operation.amount == protocols.FRESH:
                operation.amount = protocols.TURNED
                return operations.TURN
            raise ConnectionResetError("Connection lost: the stream is closed")
        if writer._h_flow._connection_lost:
            raise ConnectionResetError("Connection lost")
        return None

    def _try_flush(self, operation: Operation) -> object:
        self.send_gathered()
        writer = self.writer
        writer._h_check_reader()
        writer._h_sender.flush()
        transport = writer._h_sender.transport
        if transport.get_write_buffer_size() == 0:
            if writer._h_sender.held or backend.unsent_below(transport):
                if writer._h_flow._connection_lost:
                    raise ConnectionResetError("Connection lost")
                # A handshake goes on, or something is left below TLS: nothing tells of its end.
                self._loop.call_later(LOOK_SECONDS, self._look_again, operation)
                return operations.PENDING
            if operation.kind is HOLD:
                self._hold(operation)
            return None
        if writer._h_flow._connection_lost:
            raise ConnectionResetError("Connection lost")
        if self._limits is None:
            # It then tells when there is nothing left.
            self._limits = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(0)
        return operations.PENDING

    def _look_again(self, operation: Operation) -> None:
        """Have *operation*, a flush, look whether everything has left."""
        if operation in self._h_waiting():
            self._h_give_up(operation)

    def _hold(self, operation: Operation) -> None:
        """Keep the place of *operation*, the first, until release()."""
        if self._queue is None:
            self._queue = deque()
        if self._queue:
            self._forget(operation)
            self._queue[0] = _HELD
        else:
            self._queue.append(_HELD)

    def _forget(self, operation: Operation) -> None:
        """*operation*, the first, does not wait for the transport any more."""
        self.writer._h_flow._h_remove_drain(operation)
        if self._limits is not None:
            self._restore_limits()

    def _restore_limits(self) -> None:
        low, high = self._limits
        self._limits = None
        set_limits(self.writer._h_sender.transport, high, low)

    def _h_wait(self, operation: Operation) -> None:
        if self._queue is None:
            self._queue = deque()
        queue = self._queue
        if operation not in queue:
            queue.append(operation)
        if self.timing is not None:
            self.timing.begin(operation, True)
        if queue[0] is operation:
            self.writer._h_flow._h_add_drain(operation)

    def _h_detach(self, operation: Operation) -> None:
        """*operation* is over: the next one may go on."""
        queue = self._queue
        if not queue:
            if self._limits is not None:
                self._restore_limits()
            return
        if queue[0] is not operation:
            if operation in queue:
                queue.remove(operation)
            return
        queue.popleft()
        self._forget(operation)
        self._wake_next()

    def _wake_next(self) -> None:
        if self._queue and self._queue[0] is not _HELD:
            first = self._queue[0]
            if is_waiting(first):
                self._h_scheduler.wake(operations.woken(first))

    def _h_waiting(self) -> list[Operation]:
        queue = self._queue
        return [each for each in queue if each is not _HELD and is_waiting(each)] if queue else []

    def _h_give_up(self, operation: Operation) -> None:
        self.writer._h_flow._h_remove_drain(operation)
        self._h_scheduler.wake(operations.woken(operation))

    def _h_moved(self) -> int:
        return self.sent() - self.unsent()


def is_waiting(operation: Operation) -> bool:
    """Call is_waiting() of an *operation* that comes out of something untyped."""
    return operation.is_waiting()


def set_limits(transport: Any, high: int, low: int | None = None) -> None:
    """Set the limits of *transport*, where it is open: one of uvloop's that is closed raises
    RuntimeError."""
    try:
        transport.set_write_buffer_limits(high, low)
    except RuntimeError:
        if not transport.is_closing():
            raise
