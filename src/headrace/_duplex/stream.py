"""Stream: both halves of a connection as one object.

It stands on a StreamReader and a StreamWriter, and adds what asyncio never had: writes that wait
for room before they accept anything, timeouts that cancel no task, deadlines, peek and unread. Over
a pair that is not ours it fetches the bytes into a reader of its own, when a read wants them.
"""

from __future__ import annotations

import contextlib
import ssl as ssl_module
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self
from weakref import ref

try:
    import cython
except ModuleNotFoundError:
    from headrace._core import _uncompiled as cython

if not cython.compiled:
    from headrace._core import cprims_py as cprims

from headrace._core.coroutines import mark_coroutine_functions
from headrace._duplex import closing, foreign, reads, writes
from headrace._duplex.bounded import bounded
from headrace._duplex.foreign import ForeignWrites
from headrace._duplex.writes import Outgoing, Writes
from headrace._streams.arguments import DEFAULT_LIMIT
from headrace._streams.read_half import Read
from headrace._streams.reader import Reader, StreamReader
from headrace._streams.writer import Writer
from headrace._transport import operation as operations
from headrace._transport import sender as senders
from headrace._transport import timing as timings
from headrace._transport.operation import Operation
from headrace._transport.timing import Deadline, Timing
from headrace.errors import ConnectTimeout

Buffer = bytes | bytearray | memoryview

# How long closing may take in all, in seconds, unless the caller says: Go gives a close_notify as
# long (crypto/tls, closeNotify), and many peers never answer one.
CLOSE_SECONDS = 5.0


class Duplex:
    """The methods of a Stream. A compiled class cannot be published: Stream stands in front."""

    def __init__(self, reader: Any, writer: Any) -> None:
        if not hasattr(reader, "read") or not hasattr(writer, "write"):
            raise TypeError(
                f"a Stream is made of a reader and a writer, not of {type(reader).__name__!r} and "
                f"{type(writer).__name__!r}"
            )
        self._given_reader = reader
        self._given_writer = writer
        self._timing = None
        self._reads = 0
        if isinstance(reader, Reader):
            self._reader = reader
            self._is_foreign = False
        else:
            self._reader = StreamReader(DEFAULT_LIMIT)
            self._is_foreign = True
        self._out = outgoing(self, writer)

    def __repr__(self) -> str:
        info = [type(self).__name__, f"peername={self.peername!r}"]
        if self.buffered:
            info.append(f"buffered={self.buffered}")
        if self.at_eof():
            info.append("at_eof")
        if self.closing:
            info.append("closing")
        return "<{}>".format(" ".join(info))

    # ---- reading

    def _start(self, kind: Read, amount: int, argument: object, timeout: float | None) -> Any:
        """Return what awaits a read of *kind*."""
        self._reads += 1
        if self._is_foreign:
            return self._start_foreign(kind, amount, argument, timeout, -1)
        operation = self._reader._h_start(kind, amount, argument)
        if timeout is not None or (self._timing is not None and self._timing.deadlines):
            self._bound(operation, timeout)
        return operation

    def _start_within(
        self, kind: Read, amount: int, argument: object, timeout: float | None, limit: int
    ) -> Any:
        """The same for a read that may search *limit* bytes."""
        self._reads += 1
        if limit < 0:
            raise ValueError(f"the limit is a number of bytes, not {limit}")
        if self._is_foreign:
            return self._start_foreign(kind, amount, argument, timeout, limit)
        operation = self._reader._h_start(kind, amount, argument)
        timings.limit_to(operation, limit)
        if timeout is not None or (self._timing is not None and self._timing.deadlines):
            self._bound(operation, timeout)
        return operation

    def _start_foreign(
        self, kind: Read, amount: int, argument: object, timeout: float | None, limit: int
    ) -> Any:
        operation = operations.by_hand(self._reader, kind, amount, argument)
        if limit >= 0:
            timings.limit_to(operation, limit)
        seconds = timings.checked_seconds(timeout, kind.name)
        if self._timing is not None:
            self._timing.bound(operation, seconds)
        return foreign.fetch(self, self._given_reader, self._reader, kind, operation, seconds)

    def _bound(self, operation: Operation, timeout: float | None) -> None:
        seconds = timings.checked_seconds(timeout, operation.kind.name)
        self._timed().bound(operation, seconds)

    def _timed(self) -> Timing:
        """Return what bounds the waits of this stream; most need none."""
        if self._timing is None:
            self._timing = Timing(self._reader, self._out, self)
            self._reader._h_time(self._timing)
            self._out.timing = self._timing
        return self._timing

    def read(self, n: int = 65536, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return up to *n* bytes as soon as there are any.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Returns: bytes, not empty before the end of input; b"" at the end.
        Raises: ValueError where *n* is negative (read_all() reads up to the end); ReadTimeout and
        DeadlineExceeded; what broke the connection, once what came before the loss has been read.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        amount = cprims.clipped(n)
        if amount < 0:
            raise ValueError("read() takes a number of bytes; read_all() reads up to the end")
        return self._start(reads.READ, amount, None, timeout)

    def readexactly(self, n: int, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return exactly *n* bytes; it may be more than the limit.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Raises: ValueError where *n* is negative; IncompleteReadError where the input ends before:
        its ``partial`` has what was left, and the buffer is empty; ReadTimeout and
        DeadlineExceeded; what broke the connection: the buffer stays.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        return self._start(reads.READEXACTLY, cprims.clipped(n), n, timeout)

    def readuntil(
        self,
        separator: Buffer | tuple[Buffer, ...] = b"\n",
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, bytes]:
        """Return the bytes up to and with *separator*.

        Args: *separator*, bytes-like, or a tuple of such: whichever ends first counts; *limit*, how
        many bytes may stand before it (None for the stream's limit); *timeout*, how many seconds
        this call may take.
        Raises: TypeError where *separator* is neither; ValueError where it, or the tuple, is empty,
        or *limit* is negative; IncompleteReadError where the input ends before: its ``partial`` has
        what was left, and the buffer is empty; LimitOverrunError where more bytes than the limit
        stand before the separator: all of them stay; ReadTimeout and DeadlineExceeded; what broke
        the connection: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped. So
        is a timeout.
        """
        if limit is None:
            return self._start(reads.READUNTIL, 0, separator, timeout)
        return self._start_within(reads.READUNTIL, 0, separator, timeout, limit)

    def readline(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Return one line with its newline, b"\\n"; at the end of input what is left, which may be
        b"".

        Args: *limit*, how many bytes a line may have before its newline (None for the stream's
        limit); *timeout*, how many seconds this call may take.
        Raises: LimitOverrunError where the line is longer: all of it stays, and skip() gets past
        it; ValueError where *limit* is negative; ReadTimeout and DeadlineExceeded; what broke the
        connection: the buffer stays.
        Cancellation: safe: no byte is taken, and the next search goes on where this one stopped. So
        is a timeout.
        """
        if limit is None:
            return self._start(reads.READLINE, 0, None, timeout)
        return self._start_within(reads.READLINE, 0, None, timeout, limit)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._start(reads.NEXT_LINE, 0, None, None)

    def read_all(
        self, *, limit: int | None = None, timeout: float | None = None
    ) -> Coroutine[Any, Any, bytes]:
        """Return everything up to the end of input.

        Args: *limit*, how many bytes that may be (None for as many as come); *timeout*, how many
        seconds this call may take.
        Raises: LimitOverrunError where more than *limit* bytes come: all of them stay; ValueError
        where *limit* is negative; ReadTimeout and DeadlineExceeded; what broke the connection.
        Cancellation: safe: no byte is taken. So is a timeout.
        """
        if limit is None:
            return self._start(reads.READ_ALL, -1, None, timeout)
        return self._start_within(reads.READ_ALL_WITHIN, -1, None, timeout, limit)

    def peek(self, n: int, *, timeout: float | None = None) -> Coroutine[Any, Any, bytes]:
        """Return the first *n* bytes without taking them; fewer only at the end of input.

        Args: *n*, a number of bytes, at most the limit of the stream; *timeout*, how many seconds
        this call may take.
        Raises: ValueError where *n* is negative or more than the limit; ReadTimeout and
        DeadlineExceeded; what broke the connection, where it did so before n bytes came.
        Cancellation: safe. So is a timeout.
        """
        return self._start(reads.PEEK, cprims.clipped(n), n, timeout)

    def read_into(
        self, buffer: bytearray | memoryview, *, timeout: float | None = None
    ) -> Coroutine[Any, Any, int]:
        """Put bytes into *buffer* as soon as there are any, as many as fit; return how many.

        Args: *buffer*, anything writable with the buffer protocol; *timeout*, how many seconds this
        call may take.
        Returns: a number of bytes, 0 at the end of input or where *buffer* is empty.
        Raises: TypeError where *buffer* cannot be written; ReadTimeout and DeadlineExceeded; what
        broke the connection, once what came before the loss has been read.
        Cancellation: safe: the buffer is written in the task's own step, and never after that. So
        is a timeout.
        """
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("read_into() needs a buffer that can be written")
        return self._start(reads.READ_INTO, len(view), view, timeout)

    async def skip(self, n: int, *, timeout: float | None = None) -> int:
        """Throw away *n* bytes as they come, and return *n*.

        Args: *n*, a number of bytes; *timeout*, how many seconds this call may take.
        Raises: ValueError where *n* is negative; IncompleteReadError where the input ends before;
        ReadTimeout and DeadlineExceeded; what broke the connection. Each has ``transferred``: how
        many bytes are gone.
        Cancellation: what is gone is gone; ``transferred`` of the CancelledError says how much.
        """
        if n < 0:
            raise ValueError("skip() takes a number of bytes that is not negative")
        before = self.bytes_read
        try:
            await self._start(reads.SKIP, cprims.clipped(n), n, timeout)
        except BaseException as error:
            error.transferred = self.bytes_read - before
            raise
        return n

    def read_nowait(self, n: int = -1) -> bytes:
        """Return what is buffered, up to *n* bytes where that is not negative. b"" says only that
        there is nothing now, and nothing of the end.

        Raises: what set_exception() of the reader has set.
        """
        reader = self._reader
        if reader._exception is not None:
            reader._h_check()
        size = reader._h_bytes.length()
        return reader._h_take(size if n < 0 else min(size, n))

    def unread(self, data: Buffer) -> None:
        """Put *data* back in front of what is to be read: what was read too far, or was never sent.
        A read that waits is woken.

        Raises: TypeError where *data* is not bytes-like.
        """
        data = senders.as_bytes(data)
        if data:
            self._reader._h_bytes.prepend(data)
            self._reader._h_after_feed()

    def at_eof(self) -> bool:
        """Return whether the input has ended and all of it was read."""
        return self._reader.at_eof()

    @property
    def buffered(self) -> int:
        """How many bytes have come and were not read."""
        return self._reader._h_bytes.length()

    @property
    def limit(self) -> int:
        """How many bytes a line may have, or what stands before a separator. Receiving pauses while
        more than twice as many are buffered."""
        return self._reader._limit

    @property
    def bytes_read(self) -> int:
        """How many bytes were read, skipped or passed on."""
        return self._reader._h_bytes.taken

    # ---- writing

    def write(self, *pieces: Buffer, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait until there is room, then send all of *pieces*, or keep what the system does not
        take: together, with nothing of others between them.

        Args: *pieces*, bytes-like; none is allowed; *timeout*, how many seconds this call may wait
        for room.
        Raises: TypeError where one of them is not bytes-like; WriteTimeout and DeadlineExceeded;
        RuntimeError after write_eof(); what broke the connection, or ConnectionResetError where it
        is closed. Where it raises nothing was accepted: the same write may be tried again.
        Cancellation: safe: nothing was accepted. Who waits for room is served in order.
        """
        if timeout is None:
            return self._out.start(writes.WRITE, pieces, timings.NEVER)
        seconds = timings.checked_seconds(timeout, "Stream.write")
        self._timed()
        return self._out.start(writes.WRITE, pieces, seconds)

    def write_nowait(self, *pieces: Buffer) -> None:
        """Send all of *pieces*, or keep them, without waiting for room: it is the caller who has to
        know when that is enough (``unsent``), and flush() or write() to wait.

        Raises: TypeError where one of them is not bytes-like; RuntimeError after write_eof();
        ConnectionResetError where the stream is closed. Nothing was accepted then.
        """
        if self.closing:
            raise ConnectionResetError("Connection lost: the stream is closed")
        self._out.accept(pieces)

    def flush(self, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait until the system has everything that was written before.

        Args: *timeout*, how many seconds this call may take.
        Raises: WriteTimeout and DeadlineExceeded; what broke the connection, or
        ConnectionResetError where it is gone with something unsent.
        Cancellation: safe: what was written is sent nevertheless. Who writes meanwhile waits.
        """
        seconds = timings.checked_seconds(timeout, "Stream.flush")
        if timeout is not None:
            self._timed()
        return self._out.start(writes.FLUSH, (), seconds)

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """``with stream.corked():`` gathers what is written in the block, up to 64 KiB, and sends
        it together at the end of the block, also where that ends by an exception: what was accepted
        is sent."""
        self._out.cork()
        try:
            yield
        finally:
            self._out.uncork()

    def write_eof(self) -> None:
        """End the outgoing half after what was written; reading goes on.

        Raises: NotImplementedError where the transport cannot: TLS before 1.3, and that of a loop.
        """
        self._out.send_gathered()
        self._given_writer.write_eof()

    def can_write_eof(self) -> bool:
        """Return whether write_eof() can be."""
        return bool(self._given_writer.can_write_eof())

    @property
    def unsent(self) -> int:
        """How many bytes were accepted that the system has not taken."""
        return self._out.unsent()

    @property
    def bytes_written(self) -> int:
        """How many bytes were accepted."""
        return self._out.sent()

    # ---- time

    @property
    def read_timeout(self) -> float | None:
        """How many seconds a read may wait while no byte comes; None for any time. It can be set at
        any time, and counts for a read that waits."""
        return None if self._timing is None else seconds_or_none(self._timing.read_seconds)

    @read_timeout.setter
    def read_timeout(self, seconds: float | None) -> None:
        value = timings.checked_seconds(seconds, "read_timeout")
        timing = self._timed()
        timing.read_seconds = value
        timing.look()

    @property
    def write_timeout(self) -> float | None:
        """How many seconds a write or a flush may wait while the peer takes no byte; None for any
        time. That is noticed up to an eighth of it later. It can be set at any time, and counts for
        a write that waits."""
        return None if self._timing is None else seconds_or_none(self._timing.write_seconds)

    @write_timeout.setter
    def write_timeout(self, seconds: float | None) -> None:
        value = timings.checked_seconds(seconds, "write_timeout")
        timing = self._timed()
        timing.write_seconds = value
        timing.look()

    def deadline(self, seconds: float | None = None, *, at: float | None = None) -> Deadline:
        """``with stream.deadline(seconds):`` ends every operation of this stream that the task
        starts in the block, once the time is over.

        Deadlines may stand within one another; the one that is over first counts. The task is not
        cancelled, and the stream goes on as it was. What other tasks do is not bounded.

        Args: *seconds* from now, or *at*, a time of the loop.
        Raises: TypeError where both are given, or neither, ValueError where *seconds* is negative;
        in the block DeadlineExceeded, also by an operation that would not have to wait.
        """
        return Deadline(self._timed(), seconds, at)

    def _bounded(
        self, operation: str, failure: Any, timeout: float | None
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Return the context manager that ends what is not one operation: see bounded()."""
        return bounded(
            self._timing, operation, failure, timings.checked_seconds(timeout, operation), self
        )

    # ---- the end

    @property
    def closing(self) -> bool:
        """Whether the stream is closed or being closed, by whichever side."""
        return bool(self._given_writer.is_closing())

    def close(self) -> None:
        """Send what was written, then close, without waiting for it: aclose() waits."""
        self._out.send_gathered()
        closing.linger(self._given_writer)
        self._given_writer.close()

    async def aclose(self, *, timeout: float | None = CLOSE_SECONDS) -> None:
        """Send what was written, say in TLS that it is all, close, and wait until that is done.

        Args: *timeout*, how many seconds it may take; None for any time.
        Raises: WriteTimeout and DeadlineExceeded where the peer does not take what was written;
        what broke the connection, where something was unsent. A peer that only does not answer the
        close is no error.
        Cancellation: the connection is aborted. So it is after a timeout: nothing is left open.
        """
        try:
            await closing.close(self, self._given_writer, timeout)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Close at once and forget what was not sent. Over TCP the peer sees a reset
        (SO_LINGER of 0, socket(7)), in TLS no close_notify: it cannot take what it has got for the
        whole. A Unix socket cannot be reset: its peer sees an end."""
        closing.reset(self._given_writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.aclose()
        else:
            self.abort()

    # ---- TLS

    async def start_tls(
        self,
        sslcontext: ssl_module.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_session: ssl_module.SSLSession | None = None,
        timeout: float | None = 60.0,
    ) -> None:
        """Upgrade the connection to TLS; the stream goes on over it.

        What was written leaves before, in plain text. What was received and not read, and what was
        put back by unread(), goes into the handshake on a server, and is an error on a client.

        Args: *server_hostname*, the name to verify, needed on a client whose context checks names;
        *ssl_session* as for open_connection(); *timeout*, how many seconds it may take, as long as
        asyncio gives a handshake.
        Raises: TypeError and ValueError for wrong arguments, RuntimeError where a read waits (the
        stream goes on as it was); ConnectTimeout and DeadlineExceeded; UpgradeError, ssl.SSLError
        or ConnectionError where the handshake fails.
        Cancellation: the connection is closed, as after any failure.
        """
        if self._reader._h_waits():
            raise RuntimeError("start_tls() cannot be while a read waits")
        self._out.send_gathered()
        async with self._bounded("Stream.start_tls", handshake_took, timeout):
            await self._given_writer.start_tls(
                sslcontext,
                server_hostname=server_hostname,
                **({} if ssl_session is None else {"ssl_session": ssl_session}),
            )

    # ---- what it stands on

    @property
    def reader(self) -> Any:
        """The reader, for code that knows asyncio's streams. Both read the same bytes."""
        if self._is_foreign:
            foreign.give_back(self._reader, self._given_reader)
        return self._given_reader

    @property
    def writer(self) -> Any:
        """The writer, for code that knows asyncio's streams. What it writes does not wait for room,
        and goes before what is gathered by corked()."""
        return self._given_writer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows under *name*, or *default*: 'peername', 'sockname',
        'socket', 'sslcontext', …, as in asyncio."""
        return self._given_writer.get_extra_info(name, default)

    @property
    def peername(self) -> Any:
        """The address of the peer, as the socket module writes it; None where it is not known."""
        return self.get_extra_info("peername")

    @property
    def sockname(self) -> Any:
        """The address of this side."""
        return self.get_extra_info("sockname")


class Stream(Duplex):
    """A byte stream: reads, writes, and everything about the connection.

    Args:
        reader, writer: what open_connection() returns, or asyncio's, or the pipes of a subprocess:
            anything that reads and writes as these do.

    Made by connect(), and by serve() for a handler that takes one argument. One task may read at a
    time, and any number may write. As a context manager it closes cleanly at the end of the block,
    and aborts where the block ends by an exception: the peer then sees a reset, and does not take
    what it has got for the whole.

    Raises: TypeError where one of them is no reader or writer.
    """

    __slots__ = ()


def outgoing(stream: Duplex, writer: Any) -> Outgoing:
    """Return what *stream* writes through."""
    if isinstance(writer, Writer) and has_flow(writer):
        return Writes(writer)
    return ForeignWrites(ref(stream), writer)


def has_flow(writer: Writer) -> bool:
    """Tell whether the flow control of *writer* is ours."""
    return writer._h_flow is not None


def seconds_or_none(seconds: float) -> float | None:
    """Return *seconds* as its owner sets it."""
    return None if seconds == timings.NEVER else seconds


def handshake_took(operation: str, seconds: float, stream: Any) -> ConnectTimeout:
    """Return the error of a handshake that took too long."""
    return ConnectTimeout(operation, seconds, "TLS handshake", stream)


mark_coroutine_functions(
    Stream,
    (
        "read",
        "readexactly",
        "readuntil",
        "readline",
        "read_all",
        "peek",
        "read_into",
        "write",
        "flush",
    ),
)
