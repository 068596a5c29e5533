"""Whether what both ends of a connection report is what their plan allows."""

from __future__ import annotations

import errno
from typing import Any

from tests.system.soak.plan import SIDES, Plan, other

# How a connection may break for the end that did not break it. ENOTCONN is what shutdown() says
# after a reset.
BREAKS = ("ECONNRESET", "EPIPE", "ECONNABORTED", "ENOTCONN", "ConnectionResetError")


def name_of(error: OSError) -> str:
    """Return the name of the error's number, or of its class where somebody has raised it without
    one."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def judge(plan: Plan, reports: dict[str, dict[str, Any]], excused: bool, native: bool) -> list[str]:
    """Return what is wrong, in words. *excused*: the server has ended its connections, so that any
    of them may have broken."""
    found = []
    strict = {side: not excused and plan.is_strict(side) for side in SIDES}
    for side in SIDES:
        role, report = plan.roles[side], reports[side]
        theirs, writer = reports[other(side)], plan.roles[other(side)]
        found += [f"{side}: {each}" for each in report["wrong"]]
        if report["stuck"]:
            found.append(f"{side}: {report['stuck']}")
        if report["received"] > theirs["sent"]:
            found.append(
                f"{side} received {report['received']} bytes, and {theirs['sent']} were sent"
            )
        if strict[other(side)]:
            if report["received"] != writer.total:
                found.append(f"{side} received {report['received']} bytes of {writer.total}")
            if report["read_end"] != "eof":
                found.append(f"{side} saw the end as {report['read_end'] or 'none'!r}")
        elif (
            report["received"] < theirs["acknowledged"]
            and role.reads_to_end
            and not excused
            and native
            and role.kind == "headrace"
        ):
            found.append(
                f"{side} received {report['received']} bytes, and its system "
                f"{theirs['acknowledged']} before the end"
            )
        for what in ("read_end", "write_error", "close_error"):
            value = report.get(what) or "eof"
            if value != "eof" and (value not in BREAKS or all(strict.values())):
                found.append(f"{side}: {what} is {value}")
        if report.get("eof_error") and native:
            # asyncio's own transports do raise, after a reset that they have not seen yet.
            found.append(f"{side}: write_eof() raised {report['eof_error']}")
        if role.reads_to_end and not report["read_end"]:
            found.append(f"{side} never came to the end of its reading")
    return found
