"""Stream: both halves of a connection as one object.

It stands on a StreamReader and a StreamWriter, and adds what asyncio never had: writes that wait
for room before they accept anything, timeouts that cancel no task, deadlines, peek and unread. Over
a pair that is not ours it fetches the bytes into a reader of its own, when a read wants them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as ssl_module
from collections.abc import Coroutine, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import ref

from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._duplex import closing, facts, foreign, gone, writes
from headrace._duplex.bounded import bounded
from headrace._duplex.facts import Credentials, StreamStatistics, TLSInfo
from headrace._duplex.foreign import ForeignWrites
from headrace._duplex.gone import PeerGone
from headrace._duplex.reading import Buffer, Reading
from headrace._duplex.writes import Outgoing, Writes
from headrace._streams.reader import Reader
from headrace._streams.writer import Writer
from headrace._transport import timing as timings
from headrace._transport.timing import Deadline, Timing
from headrace.errors import ConnectTimeout, ReadTimeout
from headrace.framing._codec import Codec

if TYPE_CHECKING:
    # It stands above, and puts itself here for those who look annotations up.
    from headrace._duplex.framed import Framed

T = TypeVar("T")

# How long closing may take in all, in seconds, unless the caller says: Go gives a close_notify as
# long (crypto/tls, closeNotify), and many peers never answer one.
CLOSE_SECONDS = 5.0


class Duplex(Reading):
    """The methods of a Stream. A compiled class cannot be published: Stream stands in front."""

    def __init__(self, reader: Any, writer: Any) -> None:
        if not hasattr(reader, "read") or not hasattr(writer, "write"):
            raise TypeError(
                f"a Stream is made of a reader and a writer, not of {type(reader).__name__!r} and "
                f"{type(writer).__name__!r}"
            )
        Reading.__init__(self, reader)
        self._h_given_writer = writer
        self._h_out = outgoing(self, writer)

    def __repr__(self) -> str:
        info = [type(self).__name__, f"peername={self.peername!r}"]
        if self.buffered:
            info.append(f"buffered={self.buffered}")
        if self.at_eof():
            info.append("at_eof")
        if self.closing:
            info.append("closing")
        return "<{}>".format(" ".join(info))

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
            return self._h_out.start(writes.WRITE, pieces, timings.NEVER)
        seconds = timings.checked_seconds(timeout, "Stream.write")
        self._h_timed()
        return self._h_out.start(writes.WRITE, pieces, seconds)

    def write_nowait(self, *pieces: Buffer) -> None:
        """Send all of *pieces*, or keep them, without waiting for room: it is the caller who has to
        know when that is enough (``unsent``), and flush() or write() to wait.

        Raises: TypeError where one of them is not bytes-like; RuntimeError after write_eof();
        ConnectionResetError where the stream is closed. Nothing was accepted then.
        """
        if self.closing:
            raise ConnectionResetError("Connection lost: the stream is closed")
        self._h_out.accept(pieces)

    def flush(self, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait until the system has everything that was written before. (Over uvloop's own TLS
        only until uvloop has it, which says no more: that is the portable way.)

        Args: *timeout*, how many seconds this call may take.
        Raises: WriteTimeout and DeadlineExceeded; what broke the connection, or
        ConnectionResetError where it is gone with something unsent.
        Cancellation: safe: what was written is sent nevertheless. Who writes meanwhile waits.
        """
        seconds = timings.checked_seconds(timeout, "Stream.flush")
        if timeout is not None:
            self._h_timed()
        return self._h_out.start(writes.FLUSH, (), seconds)

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """``with stream.corked():`` gathers what is written in the block, up to 64 KiB, and sends
        it together at the end of the block, also where that ends by an exception: what was accepted
        is sent."""
        self._h_out.cork()
        try:
            yield
        finally:
            self._h_out.uncork()

    def write_eof(self) -> None:
        """End the outgoing half after what was written; reading goes on.

        Raises: NotImplementedError where the transport cannot: TLS before 1.3, and that of a loop.
        """
        self._h_out.send_gathered()
        self._h_given_writer.write_eof()

    def can_write_eof(self) -> bool:
        """Return whether write_eof() can be."""
        return bool(self._h_given_writer.can_write_eof())

    @property
    def unsent(self) -> int:
        """How many bytes were accepted that the system has not taken."""
        return self._h_out.unsent()

    @property
    def bytes_written(self) -> int:
        """How many bytes were accepted."""
        return self._h_out.sent()

    # ---- time

    def _h_timed(self) -> Timing:
        """Return what bounds the waits of this stream; most need none."""
        if self._h_timing is None:
            self._h_timing = Timing(self._h_reader, self._h_out, self)
            self._h_reader._h_time(self._h_timing)
            self._h_out.timing = self._h_timing
        return self._h_timing

    @property
    def read_timeout(self) -> float | None:
        """How many seconds a read may wait while no byte comes; None for any time. It can be set at
        any time, and counts for a read that waits."""
        return None if self._h_timing is None else seconds_or_none(self._h_timing.read_seconds)

    @read_timeout.setter
    def read_timeout(self, seconds: float | None) -> None:
        value = timings.checked_seconds(seconds, "read_timeout")
        timing = self._h_timed()
        timing.read_seconds = value
        timing.look()

    @property
    def write_timeout(self) -> float | None:
        """How many seconds a write or a flush may wait while the peer takes no byte; None for any
        time. That is noticed up to an eighth of it later. It can be set at any time, and counts for
        a write that waits."""
        return None if self._h_timing is None else seconds_or_none(self._h_timing.write_seconds)

    @write_timeout.setter
    def write_timeout(self, seconds: float | None) -> None:
        value = timings.checked_seconds(seconds, "write_timeout")
        timing = self._h_timed()
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
        return Deadline(self._h_timed(), seconds, at)

    def _h_bounded(
        self, operation: str, failure: Any, timeout: float | None
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Return the context manager that ends what is not one operation: see bounded()."""
        return bounded(
            self._h_timing, operation, failure, timings.checked_seconds(timeout, operation), self
        )

    # ---- the end

    @property
    def closing(self) -> bool:
        """Whether the stream is closed or being closed, by whichever side."""
        return bool(self._h_given_writer.is_closing())

    def close(self) -> None:
        """Send what was written, then close, without waiting for it: aclose() waits."""
        self._h_out.send_gathered()
        closing.linger(self._h_given_writer)
        self._h_given_writer.close()

    async def aclose(self, *, timeout: float | None = CLOSE_SECONDS) -> None:
        """Send what was written, say in TLS that it is all, close, and wait until that is done.

        Args: *timeout*, how many seconds it may take; None for any time.
        Raises: WriteTimeout and DeadlineExceeded where the peer does not take what was written;
        what broke the connection, where something was unsent: it is aborted then. A peer that takes
        its time, or does not answer the close, is no error: the system goes on with what it has.
        Cancellation: the connection is closed at once: aborted where something is unsent.
        """
        await closing.close(self, self._h_given_writer, timeout)

    def abort(self) -> None:
        """Close at once and forget what was not sent. Over TCP the peer sees a reset
        (SO_LINGER of 0, socket(7)), in TLS no close_notify: it cannot take what it has got for the
        whole. A Unix socket cannot be reset: its peer sees an end. What reads or writes here, now
        or later, raises ConnectionAbortedError: it is not told of an end that the peer never sent.
        (Behind an end that it did send, reads go on to that.)"""
        reader = self._h_reader
        if reader._exception is None and not reader._eof:
            reader.set_exception(ConnectionAbortedError("the stream was aborted on this side"))
        closing.reset(self._h_given_writer)

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

        Args: *sslcontext*, a context of its side; *server_hostname*, the name to verify, needed on
        a client whose context checks names;
        *ssl_session* as for open_connection(); *timeout*, how many seconds it may take, as long as
        asyncio gives a handshake.
        Raises: TypeError and ValueError for wrong arguments, RuntimeError where a read waits (the
        stream goes on as it was); ConnectTimeout and DeadlineExceeded; UpgradeError, ssl.SSLError
        or ConnectionError where the handshake fails.
        Cancellation: the connection is closed, as after any failure.
        """
        if self._h_reader._h_waits():
            raise RuntimeError("start_tls() cannot be while a read waits")
        self._h_out.send_gathered()
        try:
            async with self._h_bounded("Stream.start_tls", handshake_took, timeout):
                await self._h_given_writer.start_tls(
                    sslcontext,
                    server_hostname=server_hostname,
                    **({} if ssl_session is None else {"ssl_session": ssl_session}),
                )
        except (asyncio.CancelledError, OSError):
            # Over uvloop's own it would stay open, in the middle of the handshake.
            if not self.closing:
                closing.cut(self._h_given_writer)
            raise

    def framed(self, codec: Codec[T]) -> Framed[T]:
        """Return this stream as frames: see Framed. Another codec may come after this one, and
        bytes between two frames.

        Args: *codec*, one of headrace.framing, or one's own.
        Raises: TypeError where it is none.
        """
        return Framed(self, codec)

    # ---- what it stands on

    @property
    def reader(self) -> Any:
        """The reader, for code that knows asyncio's streams. Both read the same bytes."""
        if self._h_is_foreign:
            foreign.give_back(self._h_reader, self._h_given_reader)
        return self._h_given_reader

    @property
    def writer(self) -> Any:
        """The writer, for code that knows asyncio's streams. What it writes does not wait for room,
        and goes before what is gathered by corked()."""
        return self._h_given_writer

    async def send_file(
        self,
        file: Any,
        offset: int | None = None,
        count: int | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Send what is in *file*, behind what was written before, and return how many bytes that
        is; other writers wait until it is sent. On a plain socket of ours the system sends it
        (sendfile(2)), elsewhere it is read in a thread.

        Args: *file*, a binary file object; *offset*, where to begin, None for the file's own
        position, which moves then; *count*, how many bytes at most, None for all; *timeout*, how
        many seconds this call may take.
        Raises: TypeError where *file* is not binary, ValueError where *offset* or *count* is
        negative; WriteTimeout and DeadlineExceeded; what broke the connection, ConnectionResetError
        where it is closed, RuntimeError after write_eof(); OSError of the file. Each that comes
        after the start has ``transferred``: how many bytes the stream has accepted.
        Cancellation: safe: ``transferred`` of the CancelledError says how many went, and the file's
        position is behind them.
        """
        from headrace._duplex.send_file import send_file

        return await send_file(self, file, offset, count, timeout=timeout)

    async def send_fds(self, data: Buffer, fds: Sequence[int]) -> None:
        """Send *data*, with descriptors at its first byte, behind what was written before: only
        over a stream of ``connect(max_fds=…)`` or ``serve(max_fds=…)``.

        Args: *data*, bytes-like, not empty; *fds*, descriptors: they are duplicated, and may be
        closed once this returns.
        Raises: TypeError where the stream was not made for that; ValueError where *data* is empty
        or there are more than 253 *fds*; WriteTimeout and DeadlineExceeded; OSError where one is no
        open descriptor; what broke the connection. Nothing was accepted then.
        Cancellation: safe: nothing was accepted.
        """
        from headrace._duplex.descriptors import send_fds

        await send_fds(self, data, fds)

    async def receive_fds(self, n: int) -> tuple[bytes, list[int]]:
        """Return up to *n* bytes as soon as there are any, and the descriptors that came with them:
        only over a stream of ``connect(max_fds=…)`` or ``serve(max_fds=…)``.

        The bytes never go past the place of the next descriptors. On Linux that is the first byte
        they were sent with; elsewhere it may be one that was sent before. What a plain read has
        gone past comes with the next call. The descriptors are the caller's, close-on-exec; those
        that nobody fetches are closed with the stream.

        Args: *n*, a positive number of bytes.
        Returns: the bytes, b"" at the end, and a list that may be empty.
        Raises: TypeError where the stream was not made for that; ValueError where *n* is not
        positive; what read() raises.
        Cancellation: safe: nothing is taken.
        """
        from headrace._duplex.descriptors import receive_fds

        return await receive_fds(self, n)

    async def wait_peer_gone(self, *, timeout: float | None = None) -> PeerGone:
        """Wait until the peer has ended its half, or broke the connection, while nobody reads: what
        a server asks that works for long. It takes no byte, and a read may wait at the same time.

        An end is not death: a client may end its half and wait for the answer. Over TLS an end that
        stands behind unread input is seen only where the peer closes the socket, too. It is noticed
        within 0.06 s.

        Args: *timeout*, how many seconds this call may take.
        Returns: PeerGone.EOF, RESET, or LOCAL where this side has closed or aborted the stream
        before the peer ended it.
        Raises: ReadTimeout and DeadlineExceeded.
        Cancellation: safe.
        """
        reader, writer = self._h_reader, self._h_given_writer
        async with self._h_bounded("Stream.wait_peer_gone", ReadTimeout, timeout):
            return await gone.watch(self, lambda: end_of(reader, writer))

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS has agreed on, and with whom; None in plain text."""
        return facts.tls_of(self)

    @property
    def peer_credentials(self) -> Credentials | None:
        """Who is at the other end of a Unix socket; None of another, and where the system does not
        tell."""
        return facts.credentials_of(self.get_extra_info("socket"))

    def statistics(self) -> StreamStatistics:
        """Return the figures of this stream, and what the system says of its connection."""
        return facts.statistics_of(self, self._h_reads, self._h_out.operations)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows under *name*, or *default*: 'peername', 'sockname',
        'socket', 'sslcontext', …, as in asyncio."""
        try:
            return self._h_given_writer.get_extra_info(name, default)
        except ValueError:  # a transport of uvloop's that is closed
            return default

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
    __signature__: Any = SignatureOf(lambda reader, writer: None)


def outgoing(stream: Duplex, writer: Any) -> Outgoing:
    """Return what *stream* writes through."""
    if isinstance(writer, Writer) and has_flow(writer):
        return Writes(writer)
    return ForeignWrites(ref(stream), writer)


def end_of(reader: Reader, writer: Any) -> tuple[bool, BaseException | None, bool]:
    """Return whether the peer has ended what *reader* reads; what broke it, or None; whether this
    side has closed *writer*."""
    if isinstance(writer, Writer):
        by_peer = reader._eof and not ended_here(writer)
        return by_peer, reader._exception, is_closed(writer)
    return reader._eof, reader._exception, bool(writer.is_closing())


def ended_here(writer: Writer) -> bool:
    """Tell whether the input beside *writer* has ended because this side closed."""
    return getattr(writer._h_protocol, "_h_ended_here", False)


def is_closed(writer: Writer) -> bool:
    """Tell whether *writer* was closed: what its transport does by itself does not count."""
    return writer._h_sender.closing


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
