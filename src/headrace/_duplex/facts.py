"""What is known of a connection: its TLS, its peer, its figures."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

# struct ucred (unix(7)).
_CREDENTIALS = struct.Struct("iII")

# Where struct tcp_info (linux/tcp.h) has what TCPInfo shows. It has grown at its end only.
_TCP_INFO_BYTES = 232
_BYTES_OF = {"B": 1, "I": 4, "Q": 8}
_TCP_FIELDS = {
    "state": ("B", 0),
    "mss": ("I", 16),
    "unacknowledged": ("I", 24),
    "lost": ("I", 32),
    "rtt": ("I", 68),
    "rttvar": ("I", 72),
    "congestion_window": ("I", 80),
    "retransmits": ("I", 100),
    "unsent": ("I", 144),
    "delivery_rate": ("Q", 160),
}
_MICROSECONDS = ("rtt", "rttvar")
# enum in linux/tcp_states.h, from 1 on.
_STATES = (
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
)


class Credentials(NamedTuple):
    """Who is at the other end of a Unix socket, as the system knows it from when they connected
    (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


def credentials_of(sock: Any) -> Credentials | None:
    """Return the credentials of the peer of *sock*; None where it is no Unix socket, or is closed,
    and where the system does not tell."""
    if sock is None or sock.fileno() < 0 or not hasattr(socket, "SO_PEERCRED"):
        return None
    if sock.family != socket.AF_UNIX:
        return None
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(data))


class TLSInfo(NamedTuple):
    """What TLS has agreed on, and with whom."""

    # "TLSv1.3", and the name of the cipher.
    version: str | None
    cipher: str | None
    # The protocol that both chose, None for none.
    alpn: str | None
    # The peer's certificate, as the ssl module decodes it once it was verified, and as it is.
    peer_certificate: dict[str, Any] | None
    peer_certificate_der: bytes | None
    # The name that was asked for; None on a server.
    server_hostname: str | None
    # An earlier session goes on.
    resumed: bool
    # None while the peer may send; then whether it has ended the stream by a close_notify. None,
    # too, where nobody tells: on the portable way.
    close_notify: bool | None

    def __repr__(self) -> str:
        # Without the certificates, which are long.
        return f"TLSInfo({self.version}, {self.cipher}, alpn={self.alpn!r})"


def tls_of(stream: Any) -> TLSInfo | None:
    """Return what is known of the TLS of *stream*, None where it has none."""
    session = stream.get_extra_info("ssl_object")
    if session is None:
        return None
    cipher = session.cipher()
    try:
        decoded, der = session.getpeercert(), session.getpeercert(True)
    except ValueError:  # before the handshake is done
        decoded, der = None, None
    return TLSInfo(
        version=session.version(),
        cipher=None if cipher is None else cipher[0],
        alpn=session.selected_alpn_protocol(),
        peer_certificate=decoded or None,
        peer_certificate_der=der,
        server_hostname=session.server_hostname,
        resumed=bool(session.session_reused),
        close_notify=stream.get_extra_info("close_notify"),
    )


class TCPInfo(NamedTuple):
    """What the system knows of a TCP connection (TCP_INFO, tcp(7)). What it does not tell is
    None."""

    # "ESTABLISHED", "CLOSE_WAIT", …
    state: str | None
    # How long the peer takes to acknowledge, smoothed, and how much that varies, in seconds.
    rtt: float | None
    rttvar: float | None
    # Segments that were sent again, in all; that are lost; that are on their way.
    retransmits: int | None
    lost: int | None
    unacknowledged: int | None
    # Bytes that the system has and has not sent.
    unsent: int | None
    # Segments that may be on their way; bytes of one.
    congestion_window: int | None
    mss: int | None
    # Bytes a second that the peer has taken lately.
    delivery_rate: int | None


def tcp_of(sock: Any) -> TCPInfo | None:
    """Return what the system says of *sock*; None where it is no TCP socket of Linux, or is
    closed."""
    if sock is None or sock.fileno() < 0 or not hasattr(socket, "TCP_INFO"):
        return None
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    found: dict[str, Any] = {}
    for name, (kind, at) in _TCP_FIELDS.items():
        there = len(data) >= at + _BYTES_OF[kind]
        found[name] = struct.unpack_from(kind, data, at)[0] if there else None
    for name in _MICROSECONDS:
        if found[name] is not None:
            found[name] /= 1e6
    state = found["state"] or 0
    found["state"] = _STATES[state - 1] if 1 <= state <= len(_STATES) else None
    return TCPInfo(**found)


class StreamStatistics(NamedTuple):
    """The figures of a stream."""

    # Bytes that were read, skipped or passed on; that have come and were not read.
    bytes_read: int
    buffered: int
    # Bytes that were accepted; that the system has not taken of them.
    bytes_written: int
    unsent: int
    # Calls of its methods that read, and that write or flush.
    reads: int
    writes: int
    # None where it is not over TCP, or the system does not tell.
    tcp: TCPInfo | None


def statistics_of(stream: Any, reads: int, writes: int) -> StreamStatistics:
    """Return the figures of *stream*, which has counted its calls."""
    return StreamStatistics(
        bytes_read=stream.bytes_read,
        buffered=stream.buffered,
        bytes_written=stream.bytes_written,
        unsent=stream.unsent,
        reads=reads,
        writes=writes,
        tcp=tcp_of(stream.get_extra_info("socket")),
    )
