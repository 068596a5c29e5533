"""What is closed at the very end of a batch takes leave, too."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from support.relayed import pair


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_close_that_follows_on_a_close(run: Any, native: Any, how: str) -> None:
    """A connection that is closed by who has waited for the end of another is closed, where nothing
    else happens; its peer sees that."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first, left = await pair(native, socket.AF_INET)
        second, right = await pair(native, socket.AF_INET)
        with left, right:
            # The peer's end wakes the read within a batch, and each close follows on it.
            loop.call_later(0.01, right.shutdown, socket.SHUT_WR)
            assert await second.read_all() == b""
            second.close()
            await second.writer.wait_closed()
            getattr(first, how)()
            if how == "close":
                assert await asyncio.wait_for(loop.sock_recv(left, 1), 2) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(loop.sock_recv(left, 1), 2)
            await first.writer.wait_closed()

    run(main)
