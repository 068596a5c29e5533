"""What the tests against other programs share: the two loops, and certificates as the files that
programs want."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

HOST = "localhost"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of loop: debug mode and eager tasks make no difference to a peer, and other
    tests have them."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return request.param


class Files:
    """A certificate for localhost as PEM files (``authority``, ``chain``, ``key``; ``both`` is key
    and chain), and our contexts."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(HOST, "127.0.0.1")
        self.authority, self.chain, self.key, self.both = (
            str(directory / name) for name in ("ca.pem", "chain.pem", "key.pem", "both.pem")
        )
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        issued.private_key_and_cert_chain_pem.write_to_path(self.both)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.chain, append=True)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(self.server)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))
