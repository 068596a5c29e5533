"""What a service does with systemd, without libsystemd: take the sockets it is handed, report its
state, be watched."""

from __future__ import annotations

import logging
import os
import socket
import time

logger = logging.getLogger("headrace.server")

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
UNNAMED = "unknown"  # the name of every descriptor where systemd sends no names, sd_listen_fds(3)
MAX_DIGITS = 20  # of 2**64 - 1: the widest number in systemd's variables is a uint64_t
# bytes; systemd drops what is longer: NOTIFY_BUFFER_MAX in its source, which is Linux's PIPE_BUF
MAX_MESSAGE = 4096
# Seconds to wait for room in systemd's socket; not measured. A lost READY=1 or WATCHDOG=1 gets a
# service killed, a wait holds up its loop: long enough for a burst of other services' messages,
# short enough for clients not to notice.
NOTIFY_TIMEOUT = 0.1


def activated_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the listening stream sockets that systemd has handed to this process, in systemd's
    order.

    Every call returns new duplicates, which belong to the caller. The descriptors that systemd
    passed stay open until the process ends: a later call finds them again, and clients that come
    after a duplicate is closed wait for the next start of the service, where otherwise they would
    be refused. The environment stays as it is. LISTEN_PID tells children that the sockets are not
    theirs: call this before a fork, not after it. All passed descriptors get close-on-exec: a
    program that replaces itself (os.execv()) removes LISTEN_PID first.

    The file of a Unix socket is systemd's: start_unix_server() needs ``cleanup_socket=False``, or
    from Python 3.13 on it removes the file at its end, as asyncio's does.

    Args:
        name: only sockets of this name: FileDescriptorName= in the .socket unit, or else the name
            of that unit, ".socket" included. Descriptors of other names may be of any kind. Without
            names from systemd all are called "unknown". None for all sockets.

    Returns: an empty list where systemd has handed over none, none of that name, or all of them to
    another process.
    Raises: ValueError where LISTEN_PID, LISTEN_FDS or LISTEN_FDNAMES is malformed, a passed
        descriptor is closed, or one of those asked for is no listening stream socket, with its
        number and name; OSError where this process may open no more descriptors.
    Source: sd_listen_fds(3), systemd.socket(5). LISTEN_PIDFDID of systemd 258 is not read.
    """
    if _number("LISTEN_PID") != os.getpid():
        return []
    count = _number("LISTEN_FDS") or 0
    given = os.environ.get("LISTEN_FDNAMES")
    names = None if given is None else given.split(":")
    if count and names is not None and len(names) != count:
        raise ValueError(
            f"LISTEN_FDNAMES={given!r} has {len(names)} names, and LISTEN_FDS says {count}: they "
            "must be as many"
        )
    chosen: list[tuple[int, str]] = []
    for number in range(count):
        descriptor = FIRST_DESCRIPTOR + number
        try:
            os.set_inheritable(descriptor, False)
        except OSError as error:
            raise ValueError(
                f"LISTEN_FDS={count}, but descriptor {descriptor} is not open: nothing else may "
                "close it"
            ) from error
        own_name = UNNAMED if names is None else names[number]
        if name is None or name == own_name:
            chosen.append((descriptor, own_name))
    sockets: list[socket.socket] = []
    try:
        for descriptor, own_name in chosen:
            sockets.append(_duplicate(descriptor, own_name))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def notify(*assignments: str) -> bool:
    """Tell systemd about the state of this service, as in ``notify("READY=1",
    "STATUS=accepting")``; return whether it was sent.

    May hold up the caller for NOTIFY_TIMEOUT seconds where systemd is behind in reading. No fault
    of the socket raises, because a service must not end its clients' connections over a message:
    what could not be sent is logged at level DEBUG.

    Args:
        assignments: NAME=value each, of one line; sd_notify(3) has the names. All go in one message
            of at most 4096 bytes of UTF-8.

    Returns: True where systemd's socket has taken the message; False where NOTIFY_SOCKET is not set
        (nobody wants to know), where sending failed, and, with a logged warning, where
        NOTIFY_SOCKET is no Unix socket: "vsock:" addresses are not supported.
    Raises: ValueError for no assignment, one that is not NAME=value in one line, text that UTF-8
        cannot encode, or too many bytes; also where NOTIFY_SOCKET is not set.
    Source: sd_notify(3).
    """
    message = _message(assignments)
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        kind = (
            "vsock is not supported" if address.startswith("vsock") else "it must begin with / or @"
        )
        logger.warning(
            "systemd is not told %r: NOTIFY_SOCKET=%r names no Unix socket (%s)",
            assignments,
            address,
            kind,
        )
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(NOTIFY_TIMEOUT)
            # Connected, or poll() would not wait for room at the other end. "@" stands for the zero
            # byte of an abstract name.
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send(message)
    except OSError as error:
        logger.debug("systemd was not told %r at NOTIFY_SOCKET=%r: %r", assignments, address, error)
        return False
    return True


def reloading() -> bool:
    """Tell systemd that this service begins to reload its configuration; ``notify("READY=1")`` ends
    that, also after a failure.

    Units of Type=notify-reload (systemd 253) need the time in the same message, to tell this reload
    from an earlier one: sd_notify(3).

    Returns: as notify().
    """
    return notify(
        "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
    )


def watchdog_interval() -> float | None:
    """Return the seconds from one ``notify("WATCHDOG=1")`` to the next: half of what systemd waits
    before it kills the service.

    Half is what sd_watchdog_enabled(3) advises. None where no watchdog runs, or it watches another
    process (WATCHDOG_PID).

    Raises: ValueError where WATCHDOG_USEC or WATCHDOG_PID is malformed: at the start, or the
    service would be killed later, unexplained.
    """
    watched = _number("WATCHDOG_PID")
    if watched is not None and watched != os.getpid():
        return None
    timeout_us = _number("WATCHDOG_USEC")
    return timeout_us / 2 / 1_000_000 if timeout_us else None


def _number(variable: str) -> int | None:
    """Return the number in an environment variable; None where it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ValueError(
            f"{variable}={text!r} is not a number as systemd sets it: unset it where the program "
            "is not started by systemd"
        )
    return int(text)


def _duplicate(descriptor: int, name: str) -> socket.socket:
    """Return a socket of its own for what *descriptor* is; raise ValueError where that is not a
    listening stream socket."""
    what = f"systemd has passed descriptor {descriptor} ({name!r}), which is"
    duplicate = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=duplicate)
    except OSError as error:
        os.close(duplicate)
        raise ValueError(f"{what} not a socket: ask for the sockets by their name") from error
    try:
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(
                f"{what} not a stream socket: use ListenStream= in its unit, or ask for the other "
                "sockets by their name"
            )
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(
                f"{what} not listening: a connection already, perhaps; use Accept=no in its unit, "
                "not Accept=yes"
            )
    except BaseException:
        sock.close()
        raise
    return sock


def _message(assignments: tuple[str, ...]) -> bytes:
    """Return the datagram that makes *assignments*; raise ValueError where systemd would not take
    it."""
    if not assignments:
        raise ValueError("notify() needs at least one assignment, such as 'READY=1'")
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        # A line break would begin another assignment; systemd drops a message with a zero byte.
        if not name or not equals or "\n" in assignment or "\0" in assignment:
            raise ValueError(
                f"{assignment!r} must be NAME=value, without a line break or a zero byte"
            )
    message = "\n".join(assignments).encode()
    if len(message) > MAX_MESSAGE:
        raise ValueError(
            f"the message has {len(message)} bytes, and systemd takes at most {MAX_MESSAGE}: "
            f"shorten {assignments[-1][:40]!r}"
        )
    return message
