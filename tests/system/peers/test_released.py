"""The test suite of a released package, unmodified, under headrace run: every test that passes on
asyncio's streams passes."""

from __future__ import annotations

import subprocess

import pytest

from .released import compare

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


def test_the_suite_of_aioftp(tmp_path):
    """aioftp is an FTP server and client over streams; its suite has both ends, TLS, timeouts, and
    proxies."""
    try:
        count, failed = compare("aioftp", tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip does not get it: {error}")
    assert count > 50
    assert failed == []
