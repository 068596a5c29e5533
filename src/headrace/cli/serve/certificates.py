"""The certificates of ``headrace serve``: given, or made for the occasion."""

from __future__ import annotations

import argparse
import contextlib
import ssl
import sys
import tempfile
from pathlib import Path

from headrace import Certificates


def certificates_of(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> Certificates | None:
    """Return the Certificates that TLS needs, until *stack* ends; None without TLS.

    Raises: ValueError where the options contradict each other, or there is no certificate; OSError
    for a bad file.
    """
    if not options.tls and not options.starttls:
        if options.cert or options.key or options.client_ca or options.alpn:
            raise ValueError("--cert, --key, --client-ca and --alpn are for --tls or --starttls")
        return None
    chain = options.cert
    if chain is None:
        chain = _made_certificate(stack)
    alpn = tuple(name for name in (options.alpn or "").split(",") if name)
    try:
        return Certificates(chain, options.key, client_authority=options.client_ca, alpn=alpn)
    except ssl.SSLError as error:
        raise ValueError(str(error)) from error


def _made_certificate(stack: contextlib.ExitStack) -> str:
    """Return the path of a certificate for localhost, with its key, that nobody trusts; it is
    removed in the end."""
    try:
        import trustme
    except ImportError:
        raise ValueError(
            "TLS needs --cert FILE, or trustme to make one for localhost: pip install "
            "'headrace[demo]'"
        ) from None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-")))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1", "::1")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    print(
        f"a certificate for localhost was made: headrace connect --ca {folder / 'ca.pem'}",
        file=sys.stderr,
    )
    return str(folder / "server.pem")
