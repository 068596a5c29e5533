"""StreamWriter: asyncio's writer over a Sender.

``Writer`` does the work and is compiled; ``StreamWriter`` adds asyncio's class, for ``isinstance``,
and the methods that are not on the data path. Writes go through the Sender.
"""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Coroutine, Iterable
from typing import Any

from headrace._core.coroutines import SignatureOf, mark_coroutine_functions
from headrace._core.stock import StockStreamReader, StockStreamWriter
from headrace._streams.reader import Reader
from headrace._transport import operation as operations
from headrace._transport import scheduler as schedulers
from headrace._transport import sender as senders
from headrace._transport import stream_protocol as protocols
from headrace._transport.backend import of_transport
from headrace._transport.operation import Kind, Operation, Waitable
from headrace._transport.sender import Sender
from headrace._transport.stream_protocol import FlowControl, StreamProtocol
from headrace._transport.tls_options import TLSOptions
from headrace.errors import UpgradeError

DRAIN = Kind("StreamWriter.drain")


class Writer(Waitable):
    """The writer's methods, without asyncio's class behind them: that makes it a StreamWriter."""

    def __init__(self, transport: Any, protocol: Any, reader: Any, loop: Any) -> None:
        if reader is not None and not isinstance(reader, StockStreamReader):
            raise AssertionError(
                f"reader must be a StreamReader or None, not {type(reader).__name__!r}"
            )
        self._loop = loop
        self._h_extra = None
        self._h_sender = None
        self._h_link(protocol, reader)
        if self._h_flow is not None and self._h_flow._loop is loop:
            self._h_scheduler = self._h_flow._h_scheduler
        else:
            self._h_scheduler = schedulers.scheduler_of(loop)
        sender = None if self._h_flow is None else self._h_flow._h_sender
        if sender is None or sender.transport is not transport:
            # Whoever makes a writer has the transport already.
            sender = Sender(transport, self._h_scheduler, True)
            if self._h_flow is not None and self._h_flow._h_sender is None:
                self._h_flow._h_sender = sender
            elif isinstance(protocol, StreamProtocol) and senders.is_secure(transport):
                protocol._over_ssl = (
                    True  # after loop.start_tls(), over the protocol that there was
                )
        self._h_sender = sender
        self._h_attend()
        if self._h_reader is not None and self._h_reader._h_sender is None:
            self._h_reader._h_sender = sender

    def _h_link(self, protocol: object, reader: object) -> None:
        self._h_protocol = protocol
        self._h_any_reader = reader
        self._h_reader = reader if isinstance(reader, Reader) else None
        # Only a protocol whose flow control is ours is asked directly.
        self._h_flow = None
        if isinstance(protocol, FlowControl) and is_flow_ours(protocol):
            self._h_flow = protocol
        if self._h_sender is not None:
            self._h_attend()

    def _h_attend(self) -> None:
        """Have the sender know what is unread."""
        self._h_sender.input = None if self._h_reader is None else self._h_reader._h_bytes

    # ---- asyncio's private names

    @property
    def _transport(self) -> object:
        return self._h_sender.expose()

    @_transport.setter
    def _transport(self, transport: object) -> None:
        self._h_sender.rebind(transport, True)

    @property
    def _protocol(self) -> object:
        return self._h_protocol

    @_protocol.setter
    def _protocol(self, protocol: object) -> None:
        self._h_link(protocol, self._h_any_reader)

    @property
    def _reader(self) -> object:
        return self._h_any_reader

    @_reader.setter
    def _reader(self, reader: object) -> None:
        self._h_link(self._h_protocol, reader)

    def __repr__(self) -> str:
        info = [type(self).__name__, f"transport={self._h_sender.transport!r}"]
        if self._h_any_reader is not None:
            info.append(f"reader={self._h_any_reader!r}")
        return "<{}>".format(" ".join(info))

    # ---- writing

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The underlying asyncio transport. What was written leaves first."""
        return self._h_sender.expose()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data* (bytes, bytearray or memoryview), or keep it until it can be sent; drain()
        waits while too much is kept.

        It is offered to the system before this returns; over TLS, what a handler writes without
        waiting may be encrypted together, at the next drain() or when the handler waits. A mutable
        buffer may be changed right after the call: it is copied.

        Raises: TypeError where *data* is none of these; RuntimeError after write_eof().
        What is written after close(), or after the connection is lost, is dropped: drain() says so.
        """
        self._h_sender.write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all of *data*, an iterable of bytes-like objects, as one write(); empty ones are
        allowed.

        Raises: TypeError where one of them is not bytes-like: nothing is sent; RuntimeError after
        write_eof().
        """
        self._h_sender.write_pieces(data)

    def write_eof(self) -> None:
        """Close the writing half after what was written; reading goes on.

        Raises: NotImplementedError where the transport cannot: ask can_write_eof().
        """
        return self._h_sender.write_eof()

    def can_write_eof(self) -> bool:
        """Return whether the transport supports write_eof(); TLS over a loop's own transport does
        not."""
        return self._h_sender.transport.can_write_eof()

    def close(self) -> None:
        """Send what was written, then close; wait_closed() waits for it. Closing twice is
        allowed."""
        return self._h_sender.close()

    def is_closing(self) -> bool:
        """Return whether the stream is closed or being closed, by whichever side."""
        return self._h_sender.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows under *name* ('peername', 'sockname', 'socket',
        'sslcontext', …), or *default*."""
        if self._h_extra is not None and name in self._h_extra:
            return self._h_extra[name]
        return self._h_sender.transport.get_extra_info(name, default)

    def drain(self) -> Coroutine[Any, Any, None]:
        """Wait until the transport keeps little enough for more to be written: its high-water mark
        begins the wait, its low-water mark ends it. Below that it returns at once.

        Raises: what broke the connection, as the reader has it, or ConnectionResetError where it is
        gone without an error.
        Cancellation: safe: what was written is sent nevertheless.
        """
        if self._h_flow is None:
            return self._h_drain_foreign()
        return operations.start(self, DRAIN, 0, None)

    async def _h_drain_foreign(self) -> None:
        """drain() over a protocol whose flow control is not ours (asyncio's subprocess pipes, a
        subclass's own)."""
        self._h_sender.flush()
        self._h_check_reader()
        if self._h_sender.is_closing():
            await asyncio.sleep(0)
        await self._h_protocol._drain_helper()

    # ---- the work of a drain

    def _h_attempt(self, operation: Operation) -> object:
        if operation.amount == protocols.FRESH:
            sender = self._h_sender
            sender.settle()
            self._h_check_reader()
            if sender.has_ended():
                # One turn, in which connection_lost() comes.
                operation.amount = protocols.TURNED
                return operations.TURN
        elif operation.amount == protocols.WAITED:
            # The loss of the connection, or why a server has ended it.
            self._h_check_reader()
        return self._h_flow._h_check_drain(operation)

    def _h_check_reader(self) -> None:
        """Raise what is wrong with the connection, as asyncio does, from the reader's exception().

        It is one object, raised again and again: without the frames of the last time, which would
        stay alive with it.
        """
        reader = self._h_reader
        if reader is not None and reader._h_plain_reads:
            if reader._exception is not None:
                raise reader._exception.with_traceback(None)
        elif self._h_any_reader is not None:
            error = self._h_any_reader.exception()
            if error is not None:
                raise error.with_traceback(None)

    def _h_wait(self, operation: Operation) -> None:
        self._h_flow._h_add_drain(operation)

    def _h_detach(self, operation: Operation) -> None:
        self._h_flow._h_remove_drain(operation)

    # ---- off the data path

    def wait_closed(self) -> Coroutine[Any, Any, None]:
        """Wait until the connection is closed; close() has to come first.

        Raises: what broke the connection, if that is how it ended (ConnectionResetError,
        ssl.SSLError, …).
        Cancellation: safe, and private: it does not disturb others who wait, as it does in asyncio.
        """
        protocol = self._h_protocol
        if (
            isinstance(protocol, StreamProtocol)
            and type(protocol)._get_close_waiter is StreamProtocol._get_close_waiter
        ):
            return protocol._h_wait_closed()
        return self._h_wait_closed_foreign()

    async def _h_wait_closed_foreign(self) -> None:
        await asyncio.shield(self._h_protocol._get_close_waiter(self))

    async def start_tls(
        self,
        sslcontext: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        ssl_session: ssl.SSLSession | None = None,
    ) -> None:
        """Upgrade the connection to TLS; both ends of the stream go on over it.

        The server's side is the one that a callback was given for. Bytes that have been received
        and not read are the client's first handshake message on a server and go into the handshake;
        on a client they can only have been injected, and are an error. What was written before
        leaves before the handshake, in plain text; what is written during it, after.

        Args: *server_hostname*, the name to verify, needed on a client whose context checks names;
        *ssl_handshake_timeout* and *ssl_shutdown_timeout* are in seconds, None for 60 and 30, as in
        asyncio; *ssl_session* as for open_connection().
        Raises: TypeError where *sslcontext* is no context, ValueError where *server_hostname* is
        missing (the stream goes on as it was in both cases); UpgradeError where plain bytes are
        left on a client; ssl.SSLError, ConnectionError or TimeoutError where the handshake fails.
        Cancellation: the connection is closed, as after any failure.
        """
        # What has no socket is a stand-in, in CPython's own tests too: what its loop takes for a
        # context is up to the loop.
        if not isinstance(sslcontext, ssl.SSLContext) and self.get_extra_info("socket") is not None:
            raise TypeError(
                f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
            )
        protocol = self._h_protocol
        server_side = protocol._client_connected_cb is not None
        # Asked as gently as asyncio does, which leaves the context to the loop: its own tests have
        # contexts that are not.
        if not server_side and getattr(sslcontext, "check_hostname", False) and not server_hostname:
            # The loop would find out in a callback, and leave this waiting until the handshake
            # times out.
            raise ValueError(
                "start_tls() on a client needs server_hostname: its context checks names"
            )
        await self.drain()
        sender = self._h_sender
        reader = self._h_reader
        transport = sender.expose()
        early = b"" if reader is None else reader._h_bytes.take(reader._h_bytes.length())
        if early and not server_side:
            transport.abort()
            raise UpgradeError(len(early))
        if reader is not None:
            reader._paused = False
        sender.hold()
        try:
            tls = TLSOptions(
                sslcontext,
                server_hostname,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
                ssl_session,
            )
            upgraded = await of_transport(transport, tls).start_tls(
                self._loop, transport, protocol, tls, early, server_side
            )
        except BaseException as error:
            sender.lost()
            transport.close()
            # In two turns the transport is closed. What it belongs to now, the TLS layer, may keep
            # that to itself.
            self._loop.call_soon(self._loop.call_soon, _tell_of_the_end, protocol, self, error)
            raise
        sender.rebind(upgraded, False)
        if reader is not None:
            reader._h_transport = upgraded
            if reader._paused:
                # By what came with the end of the handshake: that paused the transport below.
                transport.resume_reading()
                reader._paused = False
                reader._h_maybe_pause()
        protocol._replace_transport(upgraded)
        sender.release()

    def _h_know(self, extra: dict[str, Any]) -> None:
        """Have get_extra_info() return what is in *extra*, instead of what the transport knows."""
        self._h_extra = extra

    def _h_figures(self) -> tuple[int, int, bool, int, int]:
        """Return how many bytes have come, and are unread; whether somebody waits for more; how
        many were written, and are unsent."""
        reader = self._h_reader
        sender = self._h_sender
        unsent = sender.size + sender.transport.get_write_buffer_size()
        if reader is None:
            return 0, 0, False, sender.written, unsent
        unread = reader._h_bytes.length()
        return reader._h_bytes.taken + unread, unread, reader._h_waits(), sender.written, unsent

    def _h_counting(self) -> object:
        """Return what counts the bytes of both ways, and does not keep the writer alive."""
        return self._h_sender

    def _h_finalize(self) -> None:
        """Close what nobody can close any more, and say so."""
        sender = self._h_sender
        if sender is None or sender.is_closing():
            return
        if self._loop.is_closed():
            warnings.warn("loop is closed", ResourceWarning)
        else:
            if self._loop.is_running() and asyncio._get_running_loop() is not self._loop:
                # Dropped in another thread, as the collector of cycles may do it.
                self._loop.call_soon_threadsafe(close_sender, sender)
            else:
                self.close()
            warnings.warn(f"unclosed {self!r}", ResourceWarning)


def close_sender(sender: Sender) -> None:
    """Close *sender*: what a loop calls for a writer that was dropped in another thread."""
    sender.close()


def _tell_of_the_end(protocol: object, writer: Writer, error: BaseException) -> None:
    """Tell *protocol*, unless it knows already, that its connection ended in a handshake that
    failed."""
    if not protocol._get_close_waiter(writer).done():
        protocol.connection_lost(error if isinstance(error, OSError) else None)


def is_flow_ours(protocol: object) -> bool:
    """Tell whether *protocol* waits for resume_writing() as we do: nobody has put another
    _drain_helper in its place."""
    return getattr(
        type(protocol), "_drain_helper", None
    ) is FlowControl._drain_helper and "_drain_helper" not in getattr(protocol, "__dict__", ())


class StreamWriter(Writer, StockStreamWriter):
    """Writes to a byte stream: what open_connection() returns and start_server() hands to its
    callback."""

    __signature__: Any = SignatureOf(StockStreamWriter)

    def __del__(self) -> None:
        self._h_finalize()


mark_coroutine_functions(StreamWriter, ("drain", "start_tls", "wait_closed"))
