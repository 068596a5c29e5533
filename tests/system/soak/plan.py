"""The script of a connection: who does what on either end. It follows from the seed and the
connection's number alone, in every process."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

# The side that connects, and the side that accepts.
SIDES = ("c", "s")

# A limit that every line breaks, one that some do, asyncio's default, and one that hardly anything
# reaches.
LIMITS = (16, 1000, 65536, 1 << 20)

# How many bytes an end may have to say, each with its weight.
TOTALS = {0: 2, 1: 2, 300: 5, 20_000: 6, 300_000: 4, 2_000_000: 1}
# The same for a stream whose reader has a tiny limit, and so takes a thousand system calls for a
# megabyte; and over TCP for one whose reader has a tiny buffer in the system, which lets 40 KB a
# second through (the sender waits 0.2 s for a window that is worth while).
MOST_FOR_TINY_LIMIT = 60_000
MOST_FOR_TINY_BUFFER = 10_000

# After "eof" an end reads on to the other's end; all other endings are the last thing that it does.
SOFT_ENDINGS = ("close", "drop", "raise")
HARD_ENDINGS = ("abort", "reset", "deaf")


@dataclass(frozen=True)
class Role:
    """What one end of a connection does.

    kind: "headrace", or "plain" for a bare socket in the child process.
    total: bytes that it writes. style: "duplex", "turns" (one task reads and writes), "flood"
    (nothing is read before all is sent), "stall" (nothing is read for a while) or "trickle" (a byte
    at a time, for a while).
    ending: see SOFT_ENDINGS and HARD_ENDINGS; it comes when *trigger* ("all", "read" or "write")
    has *at* bytes.
    slow: seconds that it may waste. small: the socket's buffers are as small as can be. urgent: "",
    "once" or "inline".
    disturbed: how likely it is that something awaited is cancelled. limit: the reader's. drains:
    how likely a write is followed by drain().
    """

    kind: str
    total: int
    style: str
    ending: str
    trigger: str
    at: int
    slow: float
    small: bool
    urgent: str
    disturbed: float
    limit: int
    drains: float

    @property
    def reads_to_end(self) -> bool:
        """Whether nothing but the other end stops its reading."""
        return self.ending == "eof"

    @property
    def says_all(self) -> bool:
        """Whether it says all it has to say, and then closes in peace."""
        return self.ending == "eof" or (self.ending in SOFT_ENDINGS and self.trigger == "all")

    def __str__(self) -> str:
        return " ".join(f"{each.name}={getattr(self, each.name)}" for each in fields(self))


class Plan:
    """Connection *number* of a run with *seed*: ``by`` ("tcp", "unix" or "pair"), and the ``roles``
    of both sides.

    The script is that of its number, or of *only*, where all connections have the same.
    """

    def __init__(self, seed: int, number: int, only: int | None) -> None:
        self.number = number
        self.script = f"{seed}:{number if only is None else only}"
        rng = random.Random(self.script)
        self.by = rng.choices(("tcp", "unix", "pair"), (6, 2, 1))[0]
        kinds = rng.choices(
            (("headrace", "headrace"), ("plain", "headrace"), ("headrace", "plain")), (3, 4, 3)
        )[0]
        limits = {side: rng.choices(LIMITS, (2, 2, 4, 1))[0] for side in SIDES}
        small = {side: rng.random() < 0.3 for side in SIDES}
        calm = rng.random() < 0.4
        totals = {}
        for side in SIDES:
            total = rng.choices(tuple(TOTALS), tuple(TOTALS.values()))[0]
            total = total if total <= 1 else rng.randrange(total // 2, total)
            reader = other(side)
            if kinds[SIDES.index(reader)] == "headrace" and limits[reader] < 1000:
                total = min(total, MOST_FOR_TINY_LIMIT)
            if small[reader] and self.by == "tcp":
                total = min(total, MOST_FOR_TINY_BUFFER)
            totals[side] = total
        self.roles: dict[str, Role] = {}
        for side, kind in zip(SIDES, kinds, strict=True):
            self.roles[side] = self._role(rng, side, kind, totals, limits[side], small[side], calm)
        self._settle()

    def _role(
        self,
        rng: random.Random,
        side: str,
        kind: str,
        totals: dict[str, int],
        limit: int,
        small: bool,
        calm: bool,
    ) -> Role:
        headrace = kind == "headrace"
        if headrace:
            style = rng.choices(("duplex", "turns"), (3, 1))[0]
            endings = [
                "close",
                "abort",
                "reset",
                "drop",
                *(["raise"] if side == "s" and self.by != "pair" else []),
            ]
        else:
            style = rng.choices(("duplex", "flood", "stall", "trickle"), (4, 2, 2, 2))[0]
            endings = ["close", "reset", "reset", *(["deaf"] if self.by != "tcp" else [])]
        ending = "eof" if calm else rng.choice(["eof", *endings])
        trigger, at = "all", 0
        if ending in ("reset", "abort") or (ending != "eof" and rng.random() < 0.5):
            trigger = rng.choice(("all", "read", "write"))
            at = rng.randint(0, totals[side if trigger == "write" else other(side)])
        if ending == "deaf":
            trigger, at = "write", rng.randint(0, totals[side])
        urgent = (
            rng.choices(("", "once", "inline"), (8, 1, 1))[0]
            if self.by == "tcp" and not headrace and totals[side] > 0
            else ""
        )
        return Role(
            kind=kind,
            total=totals[side],
            style=style,
            ending=ending,
            trigger=trigger,
            at=at,
            slow=rng.choice((0.0, 0.0, 0.0, 0.1, 0.3, 1.0)),
            small=small,
            urgent=urgent,
            disturbed=rng.choice((0.0, 0.1, 0.5)),
            limit=limit,
            drains=rng.choice((0.0, 0.3, 1.0)),
        )

    def _settle(self) -> None:
        """Take out what would make the two wait for each other for ever, by their own fault, on
        asyncio's streams too."""
        client, server = self.roles["c"], self.roles["s"]
        if (
            client.kind == server.kind
            and client.ending in SOFT_ENDINGS
            and server.ending in SOFT_ENDINGS
        ):
            # An end that has closed does not read, and waits until the other has read all.
            self.roles["c"] = Role(**{**vars(client), "ending": "eof", "trigger": "all"})
        for side in SIDES:
            mine, theirs = self.roles[side], self.roles[other(side)]
            if mine.style == "turns" and (
                theirs.style in ("turns", "flood")
                or theirs.ending in SOFT_ENDINGS
                or theirs.trigger == "read"
            ):
                self.roles[side] = Role(**{**vars(mine), "style": "duplex"})

    @property
    def is_quick_pair(self) -> bool:
        """Whether it needs no server, and no end takes its time."""
        return self.by == "pair" and not any(role.slow for role in self.roles.values())

    def is_strict(self, side: str) -> bool:
        """Tell whether all that *side* says must arrive, and its end must be seen in peace.

        A socket that is closed with unread bytes resets its connection, and what it has sent may be
        lost: the system's rule.
        """
        mine, theirs = self.roles[side], self.roles[other(side)]
        return mine.says_all and theirs.reads_to_end and (mine.reads_to_end or theirs.total == 0)

    def __str__(self) -> str:
        roles = "".join(f"\n    {side}: {role}" for side, role in self.roles.items())
        return f"connection {self.number}, script {self.script}, by {self.by}{roles}"


def other(side: str) -> str:
    """Return the other side."""
    return "s" if side == "c" else "c"
