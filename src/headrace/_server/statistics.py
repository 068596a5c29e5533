"""Statistics: what a server has done so far, as an immutable snapshot."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ``StreamServer.statistics()`` returns. All numbers but those of what is there now grow
    from 0 as long as the server lives.

    Mappings have no entry for what has not happened yet.
    """

    # Seconds since the server began to listen.
    uptime: float
    # What is there now: connections from their acceptance to their end, handshakes and PROXY
    # headers under way among them, and bytes received that no handler has read, or written and not
    # sent.
    open: int
    # How many there may be, None for no bound (with workers: of all together); and whether new ones
    # are accepted just now.
    max_connections: int | None
    accepting: bool
    negotiating: int
    buffered_bytes: int
    draining: bool
    # Connections that were accepted, those that were turned away among them, by reason: "full",
    # "peer".
    accepted: int
    refused: Mapping[str, int]
    # Connections that the server has ended, by reason: "first byte", "idle", "rate", "stalled",
    # "memory", "shutdown".
    ended: Mapping[str, int]
    # Handshakes and PROXY headers that failed, by cause: "timeout", "closed", "certificate",
    # "version", "cipher", "not TLS", "proxy", "other".
    failed: Mapping[str, int]
    # Handlers that have ended, and those that raised what was their own fault, by the name of the
    # exception's class. A connection that the peer broke, or that the server has ended, is no
    # error.
    handled: int
    errors: Mapping[str, int]
    # Bytes that came from and went to the peers, as handlers see them: without TLS and the PROXY
    # protocol.
    received_bytes: int
    sent_bytes: int
    # Seconds that the last shutdown() took; None where there was none.
    drain_seconds: float | None

    @property
    def handler_errors(self) -> int:
        """How many handlers have raised what was their own fault."""
        return sum(self.errors.values())


def total(parts: Iterable[Statistics]) -> Statistics:
    """Return the sum of what several servers, or processes of one, have done; times are the longest
    of theirs."""
    several = list(parts)
    refused: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    bounds = [each.max_connections for each in several]
    for each in several:
        refused.update(each.refused)
        ended.update(each.ended)
        failed.update(each.failed)
        errors.update(each.errors)
    return Statistics(
        uptime=max((each.uptime for each in several), default=0.0),
        open=sum(each.open for each in several),
        max_connections=None
        if None in bounds
        else sum(bound for bound in bounds if bound is not None),
        accepting=any(each.accepting for each in several),
        negotiating=sum(each.negotiating for each in several),
        buffered_bytes=sum(each.buffered_bytes for each in several),
        draining=any(each.draining for each in several),
        accepted=sum(each.accepted for each in several),
        refused=dict(refused),
        ended=dict(ended),
        failed=dict(failed),
        handled=sum(each.handled for each in several),
        errors=dict(errors),
        received_bytes=sum(each.received_bytes for each in several),
        sent_bytes=sum(each.sent_bytes for each in several),
        drain_seconds=max(
            (each.drain_seconds for each in several if each.drain_seconds is not None), default=None
        ),
    )
