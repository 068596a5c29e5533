"""The incoming half of a stream: what arrives, when the transport is paused, and the one read that
waits.

``ReadHalf`` is what a protocol delivers to. It is compiled, and the base of the reader
(``reader.py``), which takes the bytes out again. Nothing here decides what a read returns;
Read.is_ready() only says whether waking it is worth while.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.format_helpers import extract_stack
from contextvars import copy_context
from typing import Any

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

from headrace._core.buffer import ReadBuffer
from headrace._streams.arguments import DEFAULT_LIMIT, checked_limit
from headrace._transport import operation as operations
from headrace._transport import scheduler as schedulers
from headrace._transport import timing as timings
from headrace._transport.operation import Kind, Operation
from headrace._transport.stream_protocol import Receiver
from headrace._transport.timing import Timing


class Read(Kind):
    """What a read does. ``reads.py`` has a subclass, and one object of it, for each."""

    def attempt(self, reader: ReadHalf, operation: Operation) -> object:
        """Return the result, taken out of the buffer, or reader._h_pending() for more bytes."""
        raise NotImplementedError

    def is_ready(self, reader: ReadHalf, operation: Operation) -> bool:
        """Tell whether *operation* can be satisfied now, or can only fail; it is not woken
        before."""
        return True

    def is_large(self, operation: Operation) -> bool:
        """Tell whether *operation* collects its bytes in the object that it returns, which has
        *amount* bytes."""
        return False

    def is_greedy(self, reader: ReadHalf, operation: Operation) -> bool:
        """Tell whether *operation* has more than twice the limit already, wants still more, and was
        never paused for it."""
        return False

    def waits_in(self, operation: Operation) -> str:
        """Return the method that is named when another coroutine waits already."""
        return self.name.rpartition(".")[2]


class ReadHalf(Receiver):
    """The bytes that have come and were not read, the transport that they come from, and the one
    read that waits for more."""

    def __init__(self, limit: int | None = None, loop: Any = None) -> None:
        limit = checked_limit(limit)
        if loop is None:
            loop = asyncio.get_event_loop()
        self._limit = limit
        self._loop = loop
        self._h_scheduler = schedulers.scheduler_of(loop)
        self._h_bytes = ReadBuffer()
        self._eof = False
        self._exception = None
        self._h_lost = None
        self._h_waiter = None
        self._h_transport = None
        self._h_sender = None
        self._h_timing = None
        self._h_context = None
        self._paused = False
        self._source_traceback = None
        self._h_plain = True
        if self._h_scheduler.debug:
            self._source_traceback = extract_stack(sys._getframe(0 if cython.compiled else 2))

    # ---- asyncio's private names

    @property
    def _buffer(self) -> bytearray:
        return self._h_bytes.expose()

    @_buffer.setter
    def _buffer(self, value: bytearray) -> None:
        self._h_bytes.replace(value if type(value) is bytearray else bytearray(value))

    @property
    def _waiter(self) -> object:
        return self._h_waiter

    @_waiter.setter
    def _waiter(self, value: object) -> None:
        self._h_waiter = value

    @property
    def _transport(self) -> object:
        sender = self._h_sender
        if sender is not None and sender.transport is self._h_transport:
            return sender.expose()
        return self._h_transport

    @_transport.setter
    def _transport(self, transport: object) -> None:
        self._h_transport = transport

    def _replace_transport(self, transport: asyncio.BaseTransport) -> None:
        if self._h_transport is None:
            raise AssertionError("Transport not set")
        self._h_transport = transport

    def _wakeup_waiter(self) -> None:
        self._h_wake()

    def _maybe_resume_transport(self) -> None:
        self._h_maybe_resume()

    def __repr__(self) -> str:
        info = ["StreamReader"]
        size = self._h_bytes.length()
        if size:
            info.append(f"{size} bytes")
        if self._eof:
            info.append("eof")
        if self._limit != DEFAULT_LIMIT:
            info.append(f"limit={self._limit}")
        if self._h_waiter:
            info.append(f"waiter={self._h_waiter!r}")
        if self._exception:
            info.append(f"exception={self._exception!r}")
        if self._h_transport:
            info.append(f"transport={self._h_transport!r}")
        if self._paused:
            info.append("paused")
        return "<{}>".format(" ".join(info))

    # ---- feeding

    def exception(self) -> BaseException | None:
        """Return the exception set by set_exception() or by the loss of the connection, or None."""
        return self._exception

    def set_exception(self, exc: BaseException) -> None:
        """Make every read raise *exc* from now on, whatever is buffered; a waiting read is
        woken."""
        self._exception = exc
        self._h_lost = None
        self._h_wake()

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport that is paused while the buffer holds more than twice the limit."""
        if self._h_transport is not None:
            raise AssertionError("Transport already set")
        self._h_transport = transport
        self._h_context = copy_context()

    def feed_data(self, data: bytes) -> None:
        """Add *data* to the buffer and wake a waiting read if it can now be satisfied."""
        self._h_feed(data if type(data) is bytes else as_fed(data))

    def feed_eof(self) -> None:
        """Mark the end of the stream, and wake a waiting read."""
        self._eof = True
        self._h_wake()

    def at_eof(self) -> bool:
        """Return True if the buffer is empty and feed_eof() was called."""
        return self._eof and self._h_bytes.length() == 0

    def _h_feed(self, data: bytes) -> None:
        if self._eof:
            raise AssertionError("feed_data after feed_eof")
        if len(data) > 0:
            self._h_bytes.append(data)
            self._h_after_feed()

    def _h_feed_front(self, scratch: bytearray, size: int) -> None:
        if self._eof:
            raise AssertionError("feed_data after feed_eof")
        self._h_bytes.append_front(scratch, size)
        self._h_after_feed()

    def _h_reserved(self) -> ReadBuffer | None:
        waiter = self._h_waiter
        if (
            waiter is None
            or type(waiter) is not Operation
            or not kind_of(waiter).is_large(waiter)
            or self._h_bytes.room() == 0
        ):
            return None
        return self._h_bytes

    def _h_waits(self) -> bool:
        return self._h_waiter is not None

    def _h_after_feed(self) -> None:
        """Wake the read that the new bytes satisfy, and pause the transport if that is due."""
        waiter = self._h_waiter
        if waiter is not None:
            if type(waiter) is not Operation or kind_of(waiter).is_ready(self, waiter):
                self._h_wake()
            else:
                if self._h_timing is not None:
                    self._h_timing.progressed(waiter)
                # It wants more than the limit, which is its right: no pause, or it would wait for
                # ever.
                if kind_of(waiter).is_greedy(self, waiter):
                    self._h_pause_once(waiter)
                return
        self._h_maybe_pause()

    def _h_maybe_pause(self) -> None:
        if (
            self._paused
            or self._h_transport is None
            or self._h_bytes.length() - self._limit <= self._limit
        ):
            return
        try:
            self._h_transport.pause_reading()
        except NotImplementedError:
            # It cannot be paused: everything is buffered, and it is not asked again.
            self._h_transport = None
        else:
            self._paused = True

    def _h_pause_once(self, waiter: Operation) -> None:
        """Give a sender that floods read(-1) one pause: other connections get their turn, and
        asyncio's own tests look for it."""
        self._h_maybe_pause()
        if self._paused:
            waiter.amount = 0
            self._h_wake()

    def _h_maybe_resume(self) -> None:
        if self._paused and self._h_bytes.length() <= self._limit:
            self._h_resume()

    def _h_resume(self) -> None:
        self._paused = False
        if self._h_context is None:
            self._h_transport.resume_reading()
        else:
            # The loop runs later receives in the context of this call, which must not be that of
            # whoever happens to read. A copy, since a transport may deliver at once, and that may
            # end here again.
            self._h_context.copy().run(self._h_transport.resume_reading)

    def _h_lose(self, error: BaseException) -> None:
        # What set_exception() has said stands: nothing is read any more.
        if self._exception is None:
            self._h_lost = error
        self._exception = error
        self._h_wake()

    def _h_wake(self) -> None:
        """Wake the waiter, whoever it is."""
        waiter = self._h_waiter
        if waiter is None:
            return
        self._h_waiter = None
        if type(waiter) is Operation:
            self._h_scheduler.wake(operations.woken(waiter))
        elif not waiter.cancelled():
            if self._exception is not None:
                waiter.set_exception(self._exception)
            else:
                waiter.set_result(None)

    # ---- for the reads

    def _h_check(self) -> None:
        """Raise the reader's exception, which is not None, where set_exception() set it.

        The loss of the connection counts only where the buffer does not do: see _h_pending().
        """
        if self._h_lost is None:
            raise self._exception.with_traceback(None)

    def _h_take(self, size: int) -> bytes:
        data = self._h_bytes.take(size)
        self._h_maybe_resume()
        return data

    def _h_pending(self) -> object:
        """Return PENDING, or raise what broke the connection: what is buffered does not satisfy the
        read, and no more comes."""
        if self._h_lost is not None:
            raise self._h_lost.with_traceback(None)
        return operations.PENDING

    def _h_start(self, kind: Read, amount: int, argument: object) -> Any:
        """Return the operation of a read. Every read is started here, so that its kind is one."""
        return operations.start(self, kind, amount, argument)

    def _h_time(self, timing: Timing | None) -> None:
        """Have *timing* bound how long reads may wait; None for no bounds."""
        self._h_timing = timing

    def _h_waiting(self) -> list[Operation]:
        waiter = self._h_waiter
        return [waiter] if type(waiter) is Operation and is_waiting(waiter) else []

    def _h_give_up(self, operation: Operation) -> None:
        self._h_wake()

    def _h_attempt(self, operation: Operation) -> object:
        if operation.bounds is not None:
            timings.check(operation)
        if cython.compiled:
            # Unchecked, for speed: see _h_start().
            return cython.cast(Read, operation.kind).attempt(self, operation)
        return operation.kind.attempt(self, operation)

    def _h_wait(self, operation: Operation) -> None:
        kind = kind_of(operation)
        if self._h_occupied():
            operation.end()
            raise RuntimeError(
                f"{kind.waits_in(operation)}() called while another coroutine is already waiting "
                "for incoming data"
            )
        if self._h_timing is not None:
            self._h_timing.begin(operation, False)
        self._h_bytes.spare()
        if kind.is_large(operation):
            self._h_bytes.reserve(operation.amount)
        self._h_waiter = operation
        if self._paused:
            # Waiting for data while nothing can come would be for ever.
            self._h_resume()

    def _h_occupied(self) -> bool:
        """Return whether somebody waits; one whose task was cancelled does not, though it has not
        run since."""
        waiter = self._h_waiter
        return waiter is not None and (type(waiter) is not Operation or is_waiting(waiter))

    def _h_detach(self, operation: Operation) -> None:
        if self._h_waiter is operation:
            self._h_waiter = None


def as_fed(data: Any) -> bytes:
    """Return as bytes what a bytearray could be extended by; nothing for anything empty."""
    fed = bytearray()
    if data:
        fed.extend(data)
    return bytes(fed)


def is_waiting(operation: Operation) -> bool:
    """Call is_waiting() of an *operation* that comes out of something untyped."""
    return operation.is_waiting()


def kind_of(operation: Operation) -> Read:
    """Return what *operation*, one that comes out of something untyped, does."""
    return operation.kind
