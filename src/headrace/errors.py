"""The errors of headrace. Where asyncio has a class, it is asyncio's own, or ours derives from it:
callers catch it already.

EOFError
    IncompleteReadError   (asyncio) EOF before the read was satisfied; ``partial`` and ``expected``
        EndOfStream       the end, where something was wanted that a stream may end without
        IncompleteFrame   the end within a frame
Exception
    LimitOverrunError     (asyncio) the separator is further away than the limit; ``consumed``
                          bytes are safe to skip
        FrameTooLarge     a frame is longer than the limit; also a ValueError
ValueError
    BadFrame              what came is no frame
OSError
    TimeoutError
        StreamTimeout     a wait of a Stream took too long; the kernel's ETIMEDOUT is never one
            ReadTimeout, WriteTimeout, ConnectTimeout, DeadlineExceeded
ssl.SSLError
    UpgradeError          start_tls() on a client that holds bytes which came in plain text
"""

from __future__ import annotations

import ssl
from asyncio import IncompleteReadError, LimitOverrunError
from typing import Any

__all__ = (
    "BadFrame",
    "ConnectTimeout",
    "DeadlineExceeded",
    "EndOfStream",
    "FrameTooLarge",
    "IncompleteFrame",
    "IncompleteReadError",
    "LimitOverrunError",
    "ReadTimeout",
    "StreamTimeout",
    "UpgradeError",
    "WriteTimeout",
)


class EndOfStream(IncompleteReadError):
    """The stream has ended, cleanly, where something was wanted: ``wanted`` says what. ``partial``
    is empty."""

    def __init__(self, wanted: str) -> None:
        super().__init__(b"", None)
        self.args: tuple[Any, ...] = (f"the stream has ended: there is no more {wanted}",)
        self.wanted = wanted

    def __reduce__(self) -> tuple[type[EndOfStream], tuple[str]]:
        return type(self), (self.wanted,)


class IncompleteFrame(IncompleteReadError):
    """The stream has ended within a frame: it was cut off, or its peer speaks another protocol.

    ``partial`` has the bytes of it that came, ``expected`` how many it needs, None where that is
    not known, and ``position`` where it begins: how many bytes of the stream were read before it.
    """

    def __init__(self, partial: bytes, expected: int | None, position: int) -> None:
        super().__init__(partial, expected)
        of = "" if expected is None else f" of {expected}"
        self.args: tuple[Any, ...] = (
            f"the stream has ended within a frame: {len(partial)}{of} bytes of it have come, from "
            f"position {position}",
        )
        self.position = position

    def __reduce__(self) -> tuple[type[IncompleteFrame], tuple[bytes, int | None, int]]:
        return type(self), (self.partial, self.expected, self.position)


class FrameTooLarge(LimitOverrunError, ValueError):
    """A frame is longer than the codec's limit. Nothing of it is taken.

    ``size`` is its length in bytes, None where that is not known (a line whose end has not come);
    ``limit`` what is allowed; ``position`` where it begins: how many bytes of the stream were read
    before it.
    """

    def __init__(self, size: int | None, limit: int, position: int) -> None:
        what = "a frame" if size is None else f"a frame of {size} bytes"
        LimitOverrunError.__init__(
            self,
            f"{what} is longer than the limit of {limit} bytes, at position {position}: skip it or "
            "close the stream, or allow more by limit=",
            0,
        )
        self.size = size
        self.limit = limit
        self.position = position

    def __reduce__(self) -> tuple[type[FrameTooLarge], tuple[int | None, int, int]]:
        return type(self), (self.size, self.limit, self.position)


class BadFrame(ValueError):
    """What came cannot be a frame of this codec: the peer speaks another protocol, or is broken.

    ``reason`` says what is wrong, and ``position`` where the frame begins: how many bytes of the
    stream were read before it.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason}, at position {position}")
        self.reason = reason
        self.position = position

    def __reduce__(self) -> tuple[type[BadFrame], tuple[str, int]]:
        return type(self), (self.reason, self.position)


class StreamTimeout(TimeoutError):
    """A wait took longer than it was allowed to. Nothing is lost, and the stream goes on as it was.

    ``operation`` is what waited, ``seconds`` how long it was allowed to, and ``stream`` whose it
    was, None where there is none yet. ``errno`` is None: the kernel's ETIMEDOUT, which ends a
    connection, is a plain TimeoutError.
    """

    def __init__(self, operation: str, seconds: float, stream: Any = None) -> None:
        super().__init__(f"{operation}() {self._says(seconds)}")
        self.operation = operation
        self.seconds = seconds
        self.stream = stream

    def _says(self, seconds: float) -> str:
        return f"took longer than {seconds:g} s"

    def __reduce__(self) -> tuple[Any, ...]:
        # A stream is of one process.
        return type(self), (self.operation, self.seconds)


class ReadTimeout(StreamTimeout):
    """A read has waited too long for bytes from the peer."""

    def _says(self, seconds: float) -> str:
        return f"has waited for the peer's bytes for {seconds:g} s"


class WriteTimeout(StreamTimeout):
    """A write, a flush or a close has waited too long for the peer to take bytes."""

    def _says(self, seconds: float) -> str:
        return f"has waited for the peer to take bytes for {seconds:g} s"


class DeadlineExceeded(StreamTimeout):
    """The time of a ``with stream.deadline(…)`` block is over."""

    def _says(self, seconds: float) -> str:
        return f"was within a deadline of {seconds:g} s, which is over"


class ConnectTimeout(StreamTimeout):
    """Connecting has taken too long; ``phase`` says what it was doing."""

    def __init__(self, operation: str, seconds: float, phase: str, stream: Any = None) -> None:
        super().__init__(operation, seconds, stream)
        self.args: tuple[Any, ...] = (f"{operation}() took longer than {seconds:g} s: {phase}",)
        self.phase = phase

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.operation, self.seconds, self.phase)


class UpgradeError(ssl.SSLError):
    """start_tls() found bytes that arrived before TLS and would later be read as if they had come
    through it.

    ``plaintext_bytes`` says how many. The connection is aborted: whoever sent them may not be the
    peer.
    """

    def __init__(self, plaintext_bytes: int) -> None:
        super().__init__(
            ssl.SSL_ERROR_SSL,
            f"{plaintext_bytes} bytes arrived in plain text before start_tls(): the peer, or "
            "somebody between, sent more than "
            "the answer to the upgrade request. Read everything that belongs before TLS first; "
            "what is left is refused.",
        )
        self.plaintext_bytes = plaintext_bytes

    def __reduce__(self) -> tuple[type[UpgradeError], tuple[int]]:
        return UpgradeError, (self.plaintext_bytes,)
