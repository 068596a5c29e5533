"""The peers: whose server is measured, and which loads it cannot serve."""

from __future__ import annotations

from dataclasses import dataclass

from .loads import Load


@dataclass(frozen=True)
class Peer:
    """One server: *streams* on *loop*, importable when all *packages* are."""

    name: str
    about: str
    loop: str  # asyncio, uvloop, trio, anyio, C, tokio
    streams: str  # a module with start_server, "protocol", or the loop's own
    packages: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        """Whether it is a contender, and not there to show what other languages do."""
        return self.loop not in ("C", "tokio")

    def reason_to_skip(self, load: Load) -> str | None:
        """Why this pair makes no sense, or None when it does."""
        reads_units = load.shape in ("line", "frame", "split")
        if self.streams in ("stream", "timed") and load.shape == "discard":
            return "a Stream is measured by its answers"
        if self.streams == "framed" and load.shape != "frame":
            return "its codec knows length-prefixed frames"
        if self.streams == "batch" and load.shape not in ("line", "frame"):
            return "there are no units in what it would read"
        duplex = ("stream", "timed", "framed", "batch")
        if load.unix and self.streams not in ("asyncio", "headrace", *duplex):
            return "only asyncio's and headrace's streams are served on a Unix socket"
        if self.loop == "C" and load.tls:
            return "the C server is plain TCP: the limit, not a TLS stack"
        if self.loop == "C" and reads_units:
            return "the C server only echoes: it would answer without finding any unit"
        if self.streams == "protocol" and reads_units:
            return "a callback protocol has no reads: the splitting would be ours, not its"
        if self.loop == "tokio" and (load.shape != "frame" or load.tls):
            return "it serves frames only, in plain text"
        if self.loop == "trio" and load.shape in ("line", "split"):
            return "trio's streams read neither lines nor exact sizes"
        return None


_ALL = (
    Peer("C", "an epoll echo server in C: the limit", "C", "C"),
    Peer("asyncio", "asyncio streams, asyncio's loop", "asyncio", "asyncio"),
    Peer("uvloop", "asyncio streams, uvloop", "uvloop", "asyncio", ("uvloop",)),
    Peer("protocol-asyncio", "callback protocol, asyncio's loop", "asyncio", "protocol"),
    Peer(
        "protocol-uvloop",
        "callback protocol, uvloop",
        "uvloop",
        "protocol",
        ("uvloop",),
    ),
    Peer(
        "aiofastnet-asyncio",
        "aiofastnet's start_server, asyncio's loop",
        "asyncio",
        "aiofastnet",
        ("aiofastnet",),
    ),
    Peer(
        "aiofastnet-uvloop",
        "aiofastnet's start_server, uvloop",
        "uvloop",
        "aiofastnet",
        ("aiofastnet", "uvloop"),
    ),
    Peer("trio", "trio's streams", "trio", "trio", ("trio",)),
    Peer("tokio", "tokio-util's LengthDelimitedCodec, in Rust, one thread", "tokio", "tokio"),
    Peer("anyio", "anyio's streams, asyncio backend", "anyio", "anyio", ("anyio",)),
    Peer(
        "headrace-asyncio",
        "headrace, asyncio's loop",
        "asyncio",
        "headrace",
        ("headrace",),
    ),
    Peer(
        "headrace-uvloop",
        "headrace, uvloop",
        "uvloop",
        "headrace",
        ("headrace", "uvloop"),
    ),
    Peer(
        "stream-asyncio",
        "headrace's Stream, asyncio's loop",
        "asyncio",
        "stream",
        ("headrace",),
    ),
    Peer("stream-uvloop", "headrace's Stream, uvloop", "uvloop", "stream", ("headrace", "uvloop")),
    Peer(
        "timed-asyncio",
        "headrace's Stream with a read_timeout, asyncio's loop",
        "asyncio",
        "timed",
        ("headrace",),
    ),
    Peer(
        "framed-asyncio",
        "headrace's framing, a frame at a time, asyncio's loop",
        "asyncio",
        "framed",
        ("headrace",),
    ),
    Peer(
        "batch-asyncio",
        "headrace's framing, all that is there at a time, asyncio's loop",
        "asyncio",
        "batch",
        ("headrace",),
    ),
    Peer(
        "serve-asyncio",
        "headrace.serve() with its defaults, asyncio's loop",
        "asyncio",
        "serve",
        ("headrace",),
    ),
    Peer(
        "serve-uvloop",
        "headrace.serve() with its defaults, uvloop",
        "uvloop",
        "serve",
        ("headrace", "uvloop"),
    ),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}
