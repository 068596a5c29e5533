"""Certificates: the certificate chains of a server, by name, which are renewed while it runs.

Each load makes new contexts. ``SSLContext.load_cert_chain()`` on a context in use would not do:
OpenSSL keeps one chain for each type of key, so an old RSA chain would be served on beside the
ECDSA chain that replaced it, and half of a failed load would stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Path: TypeAlias = str | os.PathLike[str]
Secret: TypeAlias = str | bytes | bytearray
Password: TypeAlias = Secret | Callable[[], Secret]

# The key of the default's context: no name in a handshake is empty (RFC 6066, section 3).
DEFAULT = ""
# What a client can ask for, in A-labels; a name that ends in a number is an IPv4 address, which it
# cannot (RFC 6066, section 3).
NAME = re.compile(r"(\*\.)?([a-z0-9_-]+\.)*(?![0-9]+$)[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Files:
    """Where one chain is read from."""

    certificate: Path
    key: Path | None
    password: Password | None


class Certificates:
    """Certificate chains of a server on disk: one by default, others by name; ``reload()`` takes
    new files without dropping a connection.

    A client gets the chain of the name that it asks for (SNI, RFC 6066, section 3), or the default
    if it names none that was added. Names are compared without regard to case and to a dot at the
    end.

    Dates are not looked at: a chain that has expired is loaded, as ssl does it, and clients refuse
    it.

    Args:
        certificate: path of a PEM file with the server's certificate, then those of the authorities
            between it and the root.
        key: path of a PEM file with the private key; None where it is in the file of the
            certificate.
        password: what the key is encrypted with, or a function that returns it and is called on
            each load; None for a plain key.
        client_authority: path of a PEM file with certificates of authorities: a client must then
            have a certificate that one of them has signed. None asks clients for none.
        alpn: the application protocols that the server speaks, the preferred one first, such as
            ``("h2", "http/1.1")`` (RFC 7301).
        configure: called with each context that is made, before its use, to set ciphers, versions,
            options and such. It must do the same to all: a handshake has the options, versions and
            verify_mode of the default's context, whatever name follows.

    Raises: OSError for a file that cannot be read, and ssl.SSLError for one that is malformed, for
    a key that does not belong to the certificate, or that is encrypted where the password is wrong
    or missing: the message names the files. ssl.SSLError also for a protocol in *alpn* that is
    empty or above 255 bytes, UnicodeEncodeError for one that is not ASCII, and TypeError for one
    string instead of several. What *configure* or the function for the password raises.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        *,
        password: Password | None = None,
        client_authority: Path | None = None,
        alpn: Sequence[str] = (),
        configure: Callable[[ssl.SSLContext], None] | None = None,
    ) -> None:
        if isinstance(alpn, str):
            raise TypeError(
                f"alpn is a sequence of protocols: give ({alpn!r},) instead of {alpn!r}"
            )
        self._client_authority = client_authority
        self._alpn = tuple(alpn)
        self._configure = configure
        # reload() may run in a thread, and add() then elsewhere. Handshakes take no lock: they look
        # at _contexts once.
        self._lock = threading.Lock()
        self._files = {DEFAULT: Files(certificate, key, password)}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.reload()

    def __getstate__(self) -> dict[str, Any]:
        # For the processes of serve(workers=…): contexts do not travel, paths do.
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_lock", "_contexts")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._contexts = {}
        self.reload()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection; ``reload()`` makes another.

        Ask for it anew for each connection where you can. A server that keeps one, as
        ``start_server(ssl=certificates.context)`` does, serves new chains and added names all the
        same: the context looks for the newest ones in each handshake. But the sessions that it
        remembers outlive ``reload()``, and a client that resumes one does not have its certificate
        verified again.
        """
        return self._contexts[DEFAULT]

    def add(
        self,
        name: str,
        certificate: Path,
        key: Path | None = None,
        *,
        password: Password | None = None,
    ) -> None:
        """Load another chain, for clients that ask for *name*, from the next handshake on.

        It reads files in the calling thread, and nothing changes if it raises.

        Args:
            name: a host name, in Unicode (IDNA 2003, as Python's) or in A-labels, or
                ``"*.example.org"`` for all names with exactly one label in place of the star (RFC
                9525, section 6.3). A name that was itself added goes before a star.
            certificate, key, password: as for the class.

        Raises: ValueError where *name* is no host name, is an IP address, has a star elsewhere, or
        was added before; what the class raises for files and *configure*.
        """
        host = a_labels(name)
        files = Files(certificate, key, password)
        with self._lock:
            if host in self._files:
                raise ValueError(
                    f"{name!r} was added before: write the new certificate to the same file, and "
                    "call reload()"
                )
            self._contexts = {**self._contexts, host: self._load(host, files)}
            self._files[host] = files

    def reload(self) -> None:
        """Read all files again; what they hold is served from the next handshake on.

        All is loaded before anything is replaced: nothing changes if it raises. Connections that
        are there stay as they are. Sessions from before are not resumed on the new context (see
        ``context``): their clients do a full handshake, which succeeds.

        It reads files in the calling thread, and may be called in any: ``await
        asyncio.to_thread(certificates.reload)``.

        Raises: what the class raises for files and *configure*.
        Cancellation: it has none; a task that is cancelled while it waits for the thread does not
        stop the load.
        """
        with self._lock:
            self._contexts = {name: self._load(name, files) for name, files in self._files.items()}

    def _load(self, name: str, files: Files) -> ssl.SSLContext:
        """Return a new context with the chain of *files*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with naming(files.certificate, files.key):
            context.load_cert_chain(
                files.certificate, files.key, refuse if files.password is None else files.password
            )
        if self._client_authority is not None:
            with naming(self._client_authority):
                context.load_verify_locations(self._client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        if self._configure is not None:
            self._configure(context)
        if name == DEFAULT:
            context.sni_callback = self._choose
        return context

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Go on with the newest context for *name*. OpenSSL calls this also for a client that names
        nothing: *name* is then None."""
        contexts = self._contexts
        host = (name or DEFAULT).lower().removesuffix(".")
        tls.context = (
            contexts.get(host) or contexts.get("*." + host.partition(".")[2]) or contexts[DEFAULT]
        )


def a_labels(name: str) -> str:
    """Return *name* as it is compared: in A-labels (RFC 5890), lower case, without a dot at the
    end."""
    try:
        host = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as error:
        raise ValueError(f"{name!r} is no host name: {error}") from error
    if not NAME.fullmatch(host):
        raise ValueError(
            f"{name!r} is no name that a client can ask for: give a host name, or '*.' and a host "
            "name, without a port"
        )
    return host


@contextlib.contextmanager
def naming(*paths: Path | None) -> Iterator[None]:
    """Make an error of the block, which has ssl read *paths*, say which they are. ssl names no
    file."""
    names = [os.fspath(path) for path in paths if path is not None]
    for name in names:
        with open(name, "rb"):  # says which of them is missing
            pass
    try:
        yield
    except OSError as error:
        error.strerror = f"{error.strerror}, in {' and '.join(names)}"
        raise


def refuse() -> str:
    """Raise instead of returning a password: OpenSSL would ask for one on the terminal, and the
    server would stand still."""
    raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the key is encrypted: give its password")
