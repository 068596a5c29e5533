"""The portable way: a protocol over whatever transport the running loop makes.

``StreamProtocol`` is what a loop's transport talks to. It hands arriving bytes to a Receiver (the
reader), which wakes the task that waits for them, and answers for flow control. It is compiled and
knows nothing of asyncio's base classes; the classes that users see, and subclass, are put together
in ``_streams/reader_protocol.py``. Attributes of ours begin with ``_h_``, because subclasses own
every other name (aiosmtpd has its ``_reader``, ``transport``, ``loop``); the rest are asyncio's.
"""

from __future__ import annotations

import asyncio
from asyncio.log import logger
from collections import deque
from weakref import ref

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._transport import operation as operations
from headrace._transport import scheduler as schedulers
from headrace._transport.operation import Kind, Operation, Waitable

if cython.compiled:
    from headrace._transport import opslots

    opslots.install()


# How far a drain() has come: not begun; the loop has had a turn, since the connection is closing;
# it has waited.
FRESH = 0
TURNED = 1
WAITED = 2

DRAIN_HELPER = Kind("FlowControlMixin._drain_helper")
WAIT_CLOSED = Kind("StreamWriter.wait_closed")


class Receiver(Waitable):
    """What a protocol delivers to."""

    def _h_feed(self, data: bytes) -> None:
        """Take *data*, whole, and wake whom it satisfies."""
        raise NotImplementedError

    def _h_feed_front(self, scratch: bytearray, size: int) -> None:
        """The same with a copy of the first *size* bytes of *scratch*."""
        raise NotImplementedError

    def _h_reserved(self) -> object:
        """Return the ReadBuffer in whose storage a large read collects what arrives, behind its
        ``end``, or None where none does."""
        raise NotImplementedError

    def _h_waits(self) -> bool:
        """Tell whether somebody waits for what arrives."""
        raise NotImplementedError

    def _h_after_feed(self) -> None:
        """Wake whom the bytes satisfy that were put there."""
        raise NotImplementedError

    def _h_lose(self, error: BaseException) -> None:
        """The connection broke: what is buffered is still good, then *error*."""
        raise NotImplementedError


class FlowControl(Waitable):
    """Whether writing is paused, and who waits for it; one operation a waiter, so any number may
    wait at once."""

    def __init__(self, loop: object = None) -> None:
        if loop is None:
            loop = asyncio.get_event_loop()
        self._loop = loop
        self._h_scheduler = schedulers.scheduler_of(loop)
        self._paused = False
        self._connection_lost = False
        self._drain_waiters = None
        self._h_sender = None
        self._h_error = None

    def pause_writing(self) -> None:
        """The transport's buffer went over its high-water mark: drain() waits from now on."""
        self._paused = True
        if self._loop.get_debug():
            logger.debug("%r pauses writing", self)

    def resume_writing(self) -> None:
        """The transport's buffer fell to its low-water mark: drain() goes on."""
        self._paused = False
        if self._loop.get_debug():
            logger.debug("%r resumes writing", self)
        self._h_wake_drains()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Every drain() raises from now on: *exc*, or ConnectionResetError where the end was
        ours."""
        self._connection_lost = True
        self._h_error = exc
        self._h_wake_drains()

    def _h_wake_drains(self) -> None:
        waiters = self._drain_waiters
        if waiters:
            self._drain_waiters = None
            for operation in waiters:
                self._h_scheduler.wake(operations.woken(operation))

    def _h_add_drain(self, operation: Operation) -> None:
        if self._drain_waiters is None:
            self._drain_waiters = deque()
        self._drain_waiters.append(operation)

    def _h_remove_drain(self, operation: Operation) -> None:
        if self._drain_waiters is not None and operation in self._drain_waiters:
            self._drain_waiters.remove(operation)

    def _h_check_drain(self, operation: Operation) -> object:
        """Return None where writing may go on, PENDING where it is paused. Who waited is told what
        the loss was, as in asyncio."""
        if self._connection_lost:
            if operation.amount == WAITED and self._h_error is not None:
                raise self._h_error.with_traceback(None)
            raise ConnectionResetError("Connection lost")
        if not self._paused:
            return None
        operation.amount = WAITED
        return operations.PENDING

    def _drain_helper(self) -> Operation:
        return operations.start(self, DRAIN_HELPER, 0, None)

    def _h_attempt(self, operation: Operation) -> object:
        return self._h_check_drain(operation)

    def _h_wait(self, operation: Operation) -> None:
        self._h_add_drain(operation)

    def _h_detach(self, operation: Operation) -> None:
        self._h_remove_drain(operation)

    def _get_close_waiter(self, stream: object) -> object:
        raise NotImplementedError


class StreamProtocol(FlowControl):
    """What a loop's transport talks to: it hands the bytes to the reader, and answers drain() and
    wait_closed().

    The reader is held weakly, as in asyncio: a writer keeps its reader, nobody else does.
    """

    def __init__(
        self, stream_reader: object, client_connected_cb: object = None, loop: object = None
    ) -> None:
        FlowControl.__init__(self, loop)
        self._h_receive_bytes = 0
        self._h_view = None
        self._h_close_waiter = None
        self._h_close_waiters = None
        self._h_transport = None
        self._h_server = None
        self._h_lost = False
        self._h_ended_here = False
        self._h_private = False
        self._strong_reader = None
        self._stream_reader_wr = None
        self._source_traceback = None
        if stream_reader is not None:
            self._stream_reader_wr = ref(stream_reader)
            self._source_traceback = stream_reader._source_traceback
            if client_connected_cb is not None:
                # Nobody else holds the reader of a server's connection until there is a connection.
                self._strong_reader = stream_reader
        self._task = None
        self._client_connected_cb = client_connected_cb
        self._over_ssl = False

    @property
    def _stream_reader(self) -> object:
        return None if self._stream_reader_wr is None else cprims.referent(self._stream_reader_wr)

    @property
    def _transport(self) -> object:
        sender = self._h_sender
        if sender is not None and sender.transport is self._h_transport:
            return sender.expose()
        return self._h_transport

    @_transport.setter
    def _transport(self, transport: object) -> None:
        self._h_transport = transport

    def _replace_transport(self, transport: object) -> None:
        self._h_transport = transport
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        reader = self._stream_reader
        if hasattr(reader, "_replace_transport"):  # asyncio's own has it from Python 3.14 on
            reader._replace_transport(transport)

    # ---- arriving bytes

    def data_received(self, data: bytes) -> None:
        """Deliver *data* to the reader; without one they are dropped."""
        reader = self._stream_reader
        if reader is None:
            return
        if type(data) is bytes and isinstance(reader, Receiver) and takes_fast(reader):
            feed(reader, data)
        else:
            reader.feed_data(data)

    def _h_receiver(self) -> object:
        """Return the reader where bytes can be given to it directly, else None."""
        if self._stream_reader_wr is None:
            return None
        reader = cprims.referent(self._stream_reader_wr)
        return reader if isinstance(reader, Receiver) and takes_fast(reader) else None

    def get_buffer(self, sizehint: int) -> object:
        """Return the loop's shared receive buffer, as much of it as the reader's limit allows at a
        time."""
        if self._h_view is None:
            self._h_view = memoryview(self._h_scheduler.receive_buffer())[: self._h_receive_bytes]
        return self._h_view

    def buffer_updated(self, nbytes: int) -> None:
        """Deliver the first *nbytes* of the receive buffer, as data_received() does."""
        reader = self._stream_reader
        if reader is None:
            return
        if isinstance(reader, Receiver) and takes_fast(reader):
            feed_front(reader, self._h_scheduler.receive_buffer(), nbytes)
        else:
            reader.feed_data(bytes(self._h_view[:nbytes]))

    def eof_received(self) -> bool:
        """Tell the reader; return whether the transport shall stay open for writing: the loop's TLS
        cannot, ours can."""
        reader = self._stream_reader
        if reader is not None:
            reader.feed_eof()
        if (
            self._h_sender is not None
            and self._h_sender.held
            and self._h_transport.get_extra_info("sslcontext") is None
        ):
            # A handshake over the loop's transport has just ended, and the loop's TLS above it has
            # no half-close.
            return False
        # Of a TLS that somebody put there by loop.start_tls() only the writer knows.
        transport = self._h_transport if self._h_sender is None else self._h_sender.transport
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            return transport.can_write_eof()
        return not self._over_ssl

    # ---- the end

    def _h_close(self) -> None:
        """Close as the writer does: what was written leaves first, what is written later is
        dropped."""
        if self._h_sender is not None:
            self._h_sender.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the reader, the writer and everybody who waits for the close."""
        reader = self._stream_reader
        if reader is not None:
            if exc is None:
                # A loop's TLS may close by itself where the peer's end has no close_notify.
                is_closed = self._h_sender is not None and self._h_sender.closing
                self._h_ended_here = (is_closed or not self._over_ssl) and not getattr(
                    reader, "_eof", False
                )
                reader.feed_eof()
            elif isinstance(reader, Receiver) and takes_fast(reader):
                lose(reader, exc)
            else:
                reader.set_exception(exc)
        self._h_lost = True
        self._h_error = exc
        self._h_settle_close_waiter()
        if self._h_close_waiters is not None:
            waiters = self._h_close_waiters
            self._h_close_waiters = None
            for operation in waiters:
                self._h_scheduler.wake(operations.woken(operation))
        FlowControl.connection_lost(self, exc)
        if self._h_sender is not None:
            self._h_sender.lost()
            self._h_sender = None
        if self._h_server is not None:
            self._h_server.connection_lost(self._h_transport)
            self._h_server = None
        self._stream_reader_wr = None
        self._task = None
        self._h_transport = None
        self._h_view = None

    def _h_failure(self) -> BaseException | None:
        """Return what reads raise, else what the connection was lost by, or None."""
        reader = self._stream_reader
        told = None if reader is None else reader.exception()
        return self._h_error if told is None else told

    @property
    def _closed(self) -> object:
        """The future of asyncio's protocol, made when it is first wanted."""
        if self._h_close_waiter is None:
            self._h_close_waiter = self._loop.create_future()
            if self._h_lost:
                self._h_settle_close_waiter()
        return self._h_close_waiter

    def _h_settle_close_waiter(self) -> None:
        waiter = self._h_close_waiter
        if waiter is not None and not waiter.done():
            if self._h_error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._h_error)
                # Whoever waits is told; where nobody does, that is no error.
                waiter.exception()

    def _get_close_waiter(self, stream: object) -> object:
        return self._closed

    def _h_wait_closed(self) -> Operation:
        """Return what waits for the end, as the future of _closed does, but is its caller's own."""
        return operations.start(self, WAIT_CLOSED, 0, None)

    def _h_attempt(self, operation: Operation) -> object:
        if operation.kind is not WAIT_CLOSED:
            return self._h_check_drain(operation)
        if not self._h_lost:
            return operations.PENDING
        if self._h_error is not None:
            raise self._h_error.with_traceback(None)
        return None

    def _h_wait(self, operation: Operation) -> None:
        if operation.kind is not WAIT_CLOSED:
            self._h_add_drain(operation)
        elif self._h_close_waiters is None:
            self._h_close_waiters = [operation]
        else:
            self._h_close_waiters.append(operation)

    def _h_detach(self, operation: Operation) -> None:
        if operation.kind is not WAIT_CLOSED:
            self._h_remove_drain(operation)
        elif self._h_close_waiters is not None and operation in self._h_close_waiters:
            self._h_close_waiters.remove(operation)


# Calls through these three are typed where attributes of an unknown reader are not.


def takes_fast(reader: Receiver) -> bool:
    """Tell whether nobody has overridden what we would bypass."""
    return reader._h_plain


def feed(reader: Receiver, data: bytes) -> None:
    """Deliver *data* to *reader*."""
    reader._h_feed(data)


def feed_front(reader: Receiver, scratch: bytearray, size: int) -> None:
    """Deliver the first *size* bytes of *scratch* to *reader*."""
    reader._h_feed_front(scratch, size)


def lose(reader: Receiver, error: BaseException) -> None:
    """Tell *reader* that its connection broke, by *error*."""
    reader._h_lose(error)
