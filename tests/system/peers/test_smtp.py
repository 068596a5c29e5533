"""aiosmtpd as `python -m aiosmtpd` starts it, unmodified, under headrace run: openssl s_client does
STARTTLS and delivers a letter."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from .conftest import HOST
from .programs import TIMEOUT_S, environment, free_port, program, running, under

pytestmark = pytest.mark.peers
LETTER = b"Subject: peers\r\n\r\n" + (b"x" * 70 + b"\r\n") * 5000
SESSION = (
    b"EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    + LETTER
    + b".\r\nQUIT\r\n"
)
HANDLER = """\
import hashlib

class Handler:
    async def handle_DATA(self, server, session, envelope):
        streams = {type(each).__module__.split(".")[0] for each in (server._reader, server._writer)}
        digest = hashlib.sha256(envelope.content).hexdigest()
        print("letter", *streams, session.ssl is not None, digest)
        return "250 kept"
"""


@pytest.mark.parametrize(
    ("streams", "loop"), [("stock", "asyncio"), ("headrace", "asyncio"), ("headrace", "uvloop")]
)
def test_starttls_with_aiosmtpd(files, tmp_path: Path, streams, loop):
    """The certificate is accepted, every command is answered as it should be, and a letter of 360
    kB arrives whole."""
    pytest.importorskip("aiosmtpd")
    pytest.importorskip(loop)
    (tmp_path / "letters.py").write_text(HANDLER)
    port = free_port()
    serve = [
        *under(streams, loop),
        "-m",
        "aiosmtpd",
        "--nosetuid",
        "--debug",
        "--listen",
        f"127.0.0.1:{port}",
    ]
    serve += ["--tlscert", files.chain, "--tlskey", files.key, "--class", "letters.Handler"]
    talk = [
        program("openssl"),
        "s_client",
        "-starttls",
        "smtp",
        "-connect",
        f"127.0.0.1:{port}",
        "-quiet",
    ]
    talk += [
        "-servername",
        HOST,
        "-verify_hostname",
        HOST,
        "-CAfile",
        files.authority,
        "-verify_return_error",
    ]
    with running(*serve, cwd=tmp_path, environment=environment()) as server:
        server.hear("Server is listening")
        done = subprocess.run(
            talk, input=SESSION, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done
        # The last line of each answer.
        answers = [line[:3].decode() for line in done.stdout.splitlines() if line[3:4] == b" "]
        assert answers == ["250", "250", "250", "354", "250", "221"], done.stdout
        name = "asyncio" if streams == "stock" else streams
        server.hear(f"^letter {name} True {hashlib.sha256(LETTER).hexdigest()}$")
