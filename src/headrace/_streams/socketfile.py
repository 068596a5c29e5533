"""The file of a Unix socket: made by bind(), left behind by the kernel, and removed by us if it is
still ours."""

from __future__ import annotations

import errno
import os
import socket
import stat
from asyncio.log import logger

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def is_abstract(path: str | bytes) -> bool:
    """Tell whether *path* names no file: an abstract socket of Linux, or one that was never
    bound."""
    return path[:1] in ("", b"", "\0", b"\0")


def bound_socket(path: Path) -> socket.socket:
    """Return a socket bound to *path*, in the place of a socket file that is there already.

    Raises: OSError where that cannot be, with EADDRINUSE and the path in words where something else
    is there.
    """
    path = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not is_abstract(path):
            remove_stale(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


def remove_stale(path: str | bytes) -> None:
    """Remove what a server before us left at *path*, if it is a socket."""
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # Some directories allow making a socket and nothing else; bind() says whether it matters.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, error)


class SocketFile:
    """Remembers which file a listening socket made, to remove that one and no other."""

    def __init__(self, sock: socket.socket) -> None:
        name = sock.getsockname()
        self.path = None if is_abstract(name) else os.path.abspath(name)
        try:
            self.identity = None if self.path is None else identity(self.path)
        except OSError:
            # A socket that was passed may have been bound where we cannot look: nothing of ours to
            # remove.
            self.identity = None

    def remove(self) -> None:
        """Remove the file, unless it is gone or somebody has put another in its place."""
        if self.path is None or self.identity is None:
            return
        try:
            if identity(self.path) == self.identity:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.error("Unable to clean up listening UNIX socket %r: %r", self.path, error)


def identity(path: str | bytes) -> tuple[int, int] | None:
    """Return what tells the file at *path* from any other: device and inode; None where there is
    none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
