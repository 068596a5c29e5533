# cython: language_level=3
"""What a connection can be, and what can become of that: four axes that do not depend on each
other, each of them one field of a connection with one function that sets it.

A transition that is not in TABLE is a mistake of ours. In production it happens, for a connection
that stays open for ever is worse than one in a wrong state. Where enforce() is on it raises: in
tests, and in a build for a debugger.
"""

cdef extern from *:
    """
    #ifdef NDEBUG
    #define HEADRACE_ASSERTS 0
    #else
    #define HEADRACE_ASSERTS 1
    #endif
    """
    int ASSERTS "HEADRACE_ASSERTS"

# For each axis: what may follow each state, in the order of the enums.
TABLE = {
    "receiving": {
        "receiving": {"reading_out", "unreadable", "ended", "ended_well"},
        "reading_out": {"unreadable", "ended_well"},
        "unreadable": set(),
        "ended": set(),
        "ended_well": set(),
    },
    "sending": {
        "sending": {"eof_waits"},
        "eof_waits": {"eof_sent"},
        "eof_sent": set(),
    },
    "life": {
        "open": {"departing", "closing", "lingering", "ending", "closed"},
        "departing": {"closing", "lingering", "ending", "closed"},
        "closing": {"lingering", "ending", "closed"},
        "lingering": {"ending", "closed"},
        "ending": {"lingering", "closed"},
        "closed": set(),
    },
    "handshake": {
        "plain": {"handshaking"},
        "handshaking": {"secure"},
        "secure": set(),
    },
}

cdef bint enforced = ASSERTS


def enforce(on):
    """Have transitions that are not in TABLE refused from now on, or not."""
    global enforced
    enforced = on


cpdef int check(str axis, int old, int new) except -1:
    """Raise AssertionError where *axis* cannot go from the state *old* to *new*, and that is
    enforced."""
    if enforced:
        names = list(TABLE[axis])
        if names[new] not in TABLE[axis][names[old]]:
            raise AssertionError(f"{axis}: {names[old]} cannot become {names[new]}")
    return 0
