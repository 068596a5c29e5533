"""What goes through a connection: standard input out, what comes to standard output, until the peer
ends the stream."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import time

from headrace._streams.reader import StreamReader
from headrace._streams.writer import StreamWriter
from headrace.cli.connect.opening import Say, Streams
from headrace.cli.connect.pipes import (
    CHUNK_BYTES,
    Failure,
    in_thread,
    read_input,
    to_crlf,
    write_output,
)
from headrace.cli.connect.tls import broken, is_alert

# How long the end of the input is kept back, besides two ways there and back, for a peer that has
# said nothing to what was sent: who ends the stream meanwhile did not wait for the end, as one who
# only listens does. A server of TLS ends on the first bytes. Not measured.
ANSWER_SECONDS = 0.1


class Exchange:
    """Standard input and output on one connection.

    *secure*: whether it speaks TLS. *timeout*: seconds for the last bytes at the end; and, where
    *options* give it, for a peer that does nothing. *connect_seconds*: how long the way there and
    back may take.
    """

    def __init__(
        self,
        streams: Streams,
        options: argparse.Namespace,
        *,
        secure: bool,
        timeout: float,
        connect_seconds: float,
        say: Say,
    ) -> None:
        self.reader: StreamReader
        self.writer: StreamWriter
        self.reader, self.writer = streams
        self.options = options
        self.secure = secure
        self.timeout = timeout
        self.connect_seconds = connect_seconds
        self.say = say
        self.received: int = 0
        self.sent: int = 0
        self.head: bytes = b""  # of what has been received
        self.asked: bool = False
        self.half_closed: bool = False
        self.input_ended: bool = False
        self.input_failed: bool = False
        self.heard: asyncio.Event = asyncio.Event()  # something, or the end
        # How long the peer may be silent, and whether something is due from it.
        self.patience: asyncio.Timeout = asyncio.timeout(None)
        self.is_due: bool = False
        self.is_writing: bool = False

    async def run(self) -> int:
        """Send and receive until the peer ends the stream; say how it ended, and return the exit
        status."""
        started = time.monotonic()
        ended, status = "stopped before the peer ended the stream", 130
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self.send())
                ended, status = await self.receive()
                sending.cancel()
            if status == 0:
                ended, status = await self.close(ended)
        finally:
            seconds = time.monotonic() - started
            self.say(f"{ended}; {self.received} bytes in, {self.sent} bytes out, {seconds:.3f} s")
        return 1 if self.input_failed else status

    async def send(self) -> None:
        """Send the standard input, and then the end of it."""
        translate = to_crlf() if self.options.crlf else None
        try:
            while data := await in_thread(read_input):
                if translate is not None:
                    data = translate(data)
                self.asked = True
                self.writer.write(data)
                self.expect(True)
                await self.writer.drain()
                self.expect(False)
                self.sent += len(data)
        except Failure as failure:
            self.input_failed = True
            self.say(str(failure))
        except OSError:
            return  # receive() tells how the connection ended
        self.input_ended = True
        self.expect(True)
        if self.options.no_half_close:
            return
        if not self.writer.can_write_eof():
            self.say(
                "end of the input; TLS cannot close one half here, so this waits for the peer to "
                "end (Ctrl-C stops it)"
            )
            return
        if not self.secure and self.asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS + 2 * self.connect_seconds):
                    await self.heard.wait()
        self.half_closed = True
        with contextlib.suppress(OSError):  # it is lost by now: receive() tells
            self.writer.write_eof()

    def expect(self, is_due: bool | None = None) -> None:
        """Count from now how long the peer does nothing, where *is_due* says (None: as before) that
        it is its turn; else stop counting."""
        if is_due is not None:
            self.is_due = is_due
        if self.options.timeout is not None and not self.patience.expired():
            counts = self.is_due and not self.is_writing
            self.patience.reschedule(
                asyncio.get_running_loop().time() + self.timeout if counts else None
            )

    async def receive(self) -> tuple[str, int]:
        """Write what comes to the standard output, until its end; return how it ended, and the exit
        status."""
        try:
            async with self.patience:
                while data := await self.reader.read(CHUNK_BYTES):
                    self.heard.set()
                    self.received += len(data)
                    self.head = (self.head + data)[:8]
                    self.is_writing = True
                    self.expect()
                    await in_thread(functools.partial(write_output, data))
                    self.is_writing = False
                    self.expect()
        except Failure as failure:
            return str(failure), 1
        except OSError as error:
            if self.patience.expired():
                return f"nothing came or went for {self.timeout:g} s", 1
            return broken(error) + self.unanswered(), 1
        early = "" if self.input_ended else ", before the end of the input"
        if not self.secure:
            unanswered = self.unanswered()
            return f"the peer ended the stream{early}{unanswered}", 1 if unanswered else 0
        notified = self.writer.get_extra_info("close_notify")
        if notified is False:
            return (
                f"the connection ended without TLS's close_notify{early}: somebody may have cut "
                "it, and something may be missing",
                1,
            )
        how = (
            "with close_notify"
            if notified
            else "the portable way cannot tell whether with close_notify"
        )
        return f"the peer ended the stream{early} ({how})", 0

    def unanswered(self) -> str:
        """Return what there is to say of a peer that ends on what was sent in plain text: without a
        byte, or with an alert of TLS."""
        if self.secure or not self.asked:
            return ""
        if is_alert(self.head):
            return " with an alert of TLS: does it speak TLS? try --tls"
        return (
            ""
            if self.received or self.half_closed
            else " without a byte: does it speak TLS? try --tls"
        )

    async def close(self, ended: str) -> tuple[str, int]:
        """Send the last bytes and close; return *ended* and 0, or what went wrong and 1."""
        self.writer.close()
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                await self.writer.wait_closed()
        except OSError as error:
            self.writer.transport.abort()
            why = "the peer did not take the last bytes" if limit.expired() else broken(error)
            return f"{ended}; then {why}", 1
        return ended, 0
