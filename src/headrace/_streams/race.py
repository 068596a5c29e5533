"""Connecting by ourselves: a race between the addresses that a name stands for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from headrace._streams.resolve import AddressInfo, resolve
from headrace._transport.loops import is_asyncio


async def connected_socket(
    loop: asyncio.AbstractEventLoop,
    host: str | bytes | None,
    port: int | str | None,
    hints: dict[str, int],
    local_addr: tuple[str | None, int | str] | None,
    delay: float | None,
    interleave: int | None,
    all_errors: bool,
) -> socket.socket:
    """Return a socket that is connected to *host* and *port*.

    Args:
        hints: family, type, proto and flags, for getaddrinfo().
        local_addr, delay, interleave, all_errors: as for open_connection().

    Raises: what open_connection() does. Cancellation: safe; no socket is left.
    """
    addresses = await resolve(loop, host, port, hints)
    local = None
    if local_addr is not None:
        if not isinstance(local_addr, tuple) or len(local_addr) < 2:
            raise TypeError(f"local_addr must be a tuple of host and port, not {local_addr!r}")
        local = await resolve(loop, *local_addr[:2], hints)
    return await race(loop, addresses, local, delay, interleave, all_errors)


async def race(
    loop: asyncio.AbstractEventLoop,
    addresses: Sequence[AddressInfo],
    local: Sequence[AddressInfo] | None,
    delay: float | None,
    interleave: int | None,
    all_errors: bool,
) -> socket.socket:
    """Return a socket that is connected to the first of *addresses* that answers.

    Args:
        local: the addresses to connect from, as resolve() returns them; None for any.
        delay, interleave, all_errors: as for open_connection().

    Raises: what open_connection() does. Cancellation: safe; no socket is left.
    """
    # When it is needed: importing it takes a third as long as headrace.
    import aiohappyeyeballs

    attempts = Attempts(loop, local)
    try:
        return await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=delay,
            interleave=interleave,
            loop=attempts,  # type: ignore[arg-type]  # it has what is used of a loop
            socket_factory=attempts.make_socket,
        )
    except Exception as error:
        attempts.forget_frames(error)
        # The callback that woke us holds the last attempt's future, and so the error, until the
        # loop turns.
        await asyncio.sleep(0)
        raise (attempts.failure(all_errors) or error) from None
    finally:
        # The errors' tracebacks refer to frames that refer to the attempts.
        attempts.errors.clear()


async def connect_as_given(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any
) -> None:
    """Connect *sock*, non-blocking, to *address* as it is: uvloop resolves it again, and loses its
    scope and flow label.

    Raises: OSError. Cancellation: safe; the socket is still the caller's.
    """
    try:
        sock.connect(address)
        return
    except (BlockingIOError, InterruptedError):
        pass
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"Connect call failed {address}")


class Attempts:
    """The sockets of one race: makes, binds and connects them, and remembers everything that went
    wrong.

    It stands in for the loop, of which the library uses nothing but sock_connect().
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, local: Sequence[AddressInfo] | None
    ) -> None:
        self.loop = loop
        self.local = local
        self.errors: list[Exception] = []

    def make_socket(self, address: AddressInfo) -> socket.socket:
        """Return a socket for *address*, bound to the first local address of its family that is
        free."""
        family, kind, proto = address[:3]
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            self.errors.append(error)
            raise
        try:
            self._bind(sock, family)
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, family: int) -> None:
        if self.local is None:
            return
        refused: OSError | None = None
        for where in (info[4] for info in self.local if info[0] == family):
            try:
                sock.bind(where)
                return
            except OSError as error:
                refused = OSError(
                    error.errno,
                    f"error while attempting to bind on address {where!r}: {str(error).lower()}",
                )
                self.errors.append(refused)
        if refused is None:
            refused = OSError(f"no matching local address with {family=} found")
            self.errors.append(refused)
        raise refused

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect *sock*, and remember why it failed."""
        try:
            if sock.family == socket.AF_INET6 and not is_asyncio(self.loop):
                await connect_as_given(self.loop, sock, address)
            else:
                await self.loop.sock_connect(sock, address)
        except Exception as error:
            self.errors.append(error)
            raise

    def forget_frames(self, raised: Exception) -> None:
        """Drop the tracebacks: frames of the library and of the loop hold what they have raised,
        which makes each failure a cycle."""
        raised.__traceback__ = None
        for error in self.errors:
            error.__traceback__ = None

    def failure(self, all_errors: bool) -> Exception | None:
        """Return what a race that nobody won raises, in asyncio's words; None where no attempt was
        made."""
        errors = self.errors
        if not errors:
            return None
        strange = next((error for error in errors if not isinstance(error, OSError)), None)
        if strange is not None:
            # No address' fault: an argument was wrong (a port above 65535 is an OverflowError).
            return strange
        if all_errors:
            return ExceptionGroup("create_connection failed", list(errors))
        messages = [str(error) for error in errors]
        if len(set(messages)) == 1:
            return errors[0]
        return OSError("Multiple exceptions: {}".format(", ".join(messages)))
