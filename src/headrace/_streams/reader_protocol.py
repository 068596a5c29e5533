"""The protocol classes that users see and subclass: the compiled StreamProtocol with asyncio's
bases, and the streams it makes.

Two forms. ``StreamReaderProtocol`` is a plain asyncio.Protocol, as it always was, since programs
subclass it. Connections that headrace makes itself may use ``BufferedStreamProtocol``, for loops
whose transports allocate memory for every receive unless the protocol brings its own: see
``_transport/portable.py``.
"""

from __future__ import annotations

import asyncio
from typing import Any

from headrace._core.coroutines import SignatureOf
from headrace._streams.reader import Reader
from headrace._streams.writer import StreamWriter
from headrace._transport.sender import Sender
from headrace._transport.stream_protocol import FlowControl, StreamProtocol


class ConnectingProtocol(StreamProtocol):
    """StreamProtocol that, on a server, makes the streams of a connection and calls the server's
    callback."""

    def connection_made(self, transport: object) -> None:
        """Connect the reader; on a server, call the callback and run what it returns if that is a
        coroutine.

        A callback that raises is reported to the loop's exception handler and its connection is
        closed. (asyncio leaves it open. It also leaves open, until 3.13, the connection of a
        handler that is cancelled.)
        """
        self._h_transport = transport
        reader = self._stream_reader
        if (
            self._h_sender is None or self._h_sender.transport is not transport
        ):  # a transport of ours brings its own
            self._h_sender = Sender(transport, self._h_scheduler, not self._h_private)
        if reader is not None:
            reader.set_transport(transport)
            if isinstance(reader, Reader):
                share_sender(reader, self._h_sender)
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        if self._h_server is not None:
            self._h_server.connection_made(transport)
        if self._client_connected_cb is not None:
            self._h_call_back(reader, transport)
        self._strong_reader = None

    def _h_call_back(self, reader: object, transport: object) -> None:
        try:
            result = self._client_connected_cb(
                reader, StreamWriter(transport, self, reader, self._loop)
            )
        except Exception as error:
            _report(self._loop, transport, error)
            return
        if asyncio.iscoroutine(result):
            self._task = self._h_scheduler.start(result)
            self._task.add_done_callback(HandlerDone(self._loop, transport))


def share_sender(reader: Reader, sender: Sender) -> None:
    """Let *reader* know the sender of its connection."""
    reader._h_sender = sender


class HandlerDone:
    """Closes the connection of a handler that fails or is cancelled. (A function with what it
    refers to takes four times the memory.)"""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self.loop = loop
        self.transport = transport

    def __call__(self, task: asyncio.Task[object]) -> None:
        """Close the connection where *task*, the handler, failed or was cancelled."""
        if task.cancelled():
            self.transport.close()
            return
        error = task.exception()
        if error is not None:
            _report(self.loop, self.transport, error)


def _report(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, error: BaseException
) -> None:
    loop.call_exception_handler(
        {
            "message": "Unhandled exception in client_connected_cb",
            "exception": error,
            "transport": transport,
        }
    )
    transport.close()


class FlowControlMixin(FlowControl, asyncio.Protocol):
    """What drain() needs of a protocol: pause_writing(), resume_writing() and connection_lost().

    A subclass that overrides one of them calls it too.
    """

    __signature__: Any = SignatureOf(asyncio.streams.FlowControlMixin)


class StreamReaderProtocol(ConnectingProtocol, FlowControlMixin):
    """Adapts a transport of the loop to a StreamReader and, on a server, calls
    *client_connected_cb*(reader, writer).

    Args: *stream_reader* may be None; it is held weakly. *loop* defaults to the current event loop.
    """

    __signature__: Any = SignatureOf(asyncio.streams.StreamReaderProtocol)


class BufferedStreamProtocol(ConnectingProtocol, asyncio.BufferedProtocol):
    """The same over a shared receive buffer; made by headrace's own functions only."""
