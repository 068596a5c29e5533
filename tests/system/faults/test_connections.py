"""One connection whose system calls fail: what was received is not lost, what was written arrives
or is an error, and nothing spins."""

from __future__ import annotations

import pytest

SCENES = "scenes_connections.py"
PASSING = ["EINTR", "ENOBUFS", "ENOMEM"]


@pytest.mark.parametrize("size", [12, 100_000])
@pytest.mark.parametrize("error", ["ECONNRESET", "ETIMEDOUT"])
def test_receiving_breaks(scene, error, size):
    """A receive fails: what came before can be read, then everything raises the error; also where
    it came straight into the result."""
    scene("receiving_breaks", error, size)


@pytest.mark.parametrize("how", ["reading", "paused", "queued", "step", "ended"])
@pytest.mark.parametrize("error", ["EPIPE", "ECONNRESET"])
def test_sending_breaks(scene, error, how):
    """A send fails: what the system had received is read to its end, then everything raises the
    error."""
    scene("sending_breaks", error, how)


@pytest.mark.parametrize("then", ["EINTR@1x3", "ENOBUFS@1x1", "ENOMEM@1x1"])
def test_sending_breaks_and_receiving_stumbles(scene, then):
    """The same where the first receive after the failed send fails for a passing reason."""
    scene("sending_breaks", "EPIPE", "reading", then)


@pytest.mark.parametrize("then", ["write_eof", "close"])
@pytest.mark.parametrize("error", PASSING)
def test_the_end_waits_for_what_was_written(scene, error, then):
    """Sends fail for a while before a write_eof() or close(): everything arrives, and the end
    behind it."""
    scene("sending_is_interrupted", error, then)


@pytest.mark.parametrize("wait_s", [0, 0.05], ids=["at once", "later"])
def test_aborted_while_short_of_memory(scene, wait_s):
    """A connection that waits for memory can be aborted; the try that was to come finds nothing,
    whether the loop still runs or not."""
    scene("aborted_while_short_of_memory", wait_s)


@pytest.mark.parametrize("error", ["ENOBUFS", "ENOMEM"])
@pytest.mark.parametrize("function", ["send", "recv"])
def test_short_of_memory(scene, function, error):
    """A system that is short of memory is asked every 20 ms, never more often, whatever happens
    meanwhile; then all goes on."""
    scene("short_of_memory", function, error)


@pytest.mark.parametrize("limit", [1024, 65_536])
@pytest.mark.parametrize("name", ["written_after_a_reset", "written_to_who_has_left"])
def test_a_peer_that_has_gone(scene, name, limit):
    """Nothing is injected: the peer sends, and resets or closes, and we write; all that it sent is
    read before the error."""
    scene(name, limit)


@pytest.mark.parametrize("error", PASSING)
@pytest.mark.parametrize("kind", ["plain", "buffered"])
def test_another_protocol(scene, kind, error):
    """A protocol that is not ours, set on the transport, loses nothing either, and learns once what
    broke the connection."""
    scene("another_protocol", kind, error)
