"""Certificates: the chain of each name, new files while the server runs, and what is said about
files that do not fit."""

from __future__ import annotations

import contextlib
import gc
import shutil
import ssl
import types
import weakref

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from support.certificates import HOST
from support.connections import echo, finish, serving

from headrace._server.certificates import Certificates

BUECHER = "bücher.example"
# How a client fails whom the server refuses: asyncio's transports close before the alert is sent.
REFUSED = (ssl.SSLError, ConnectionError)
# The name that is asked for, and whose chain comes.
ASKED = {
    "www.example.org": "exact",
    "WWW.Example.ORG": "exact",
    "www.example.org.": "exact",
    "mail.example.org": "wildcard",
    "MAIL.example.org.": "wildcard",
    "a.mail.example.org": "default",
    "example.org": "default",
    "elsewhere.example": "default",
    "": "default",
    BUECHER: "idna",
    "xn--bcher-kva.example": "idna",
}


class Chain:
    """A key and its certificate, in two files of a directory, and what a client sees of it:
    ``der``."""

    def __init__(self, authority, directory, *names, key_type=trustme.KeyType.ECDSA):
        leaf = authority.issue_cert(*names, key_type=key_type)
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        directory.mkdir()
        leaf.cert_chain_pems[0].write_to_path(self.certificate)
        leaf.private_key_pem.write_to_path(self.key)
        self.files = self.certificate, self.key
        self.der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())


@pytest.fixture(scope="module")
def chains(tls, tmp_path_factory):
    """One chain for each name, and of each type of key. Nobody changes these files."""
    directory = tmp_path_factory.mktemp("chains")

    def issue(label, *names, **options):
        return Chain(tls.authority, directory / label, *names, **options)

    return types.SimpleNamespace(
        default=issue("default", HOST),
        exact=issue("exact", "www.example.org"),
        wildcard=issue("wildcard", "*.example.org"),
        idna=issue("idna", BUECHER),
        renewed=issue("renewed", HOST),
        rsa=issue("rsa", HOST, key_type=trustme.KeyType.RSA),
    )


@pytest.fixture
def installed(chains, tmp_path):
    """A certificate and its key in files that the test may replace."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    renew(files, chains.default)
    return files


def renew(files, chain):
    """Replace *files* by those of *chain*."""
    for source, target in zip(chain.files, files, strict=True):
        shutil.copyfile(source, target)


def client_context(tls, version=None, certificate=None):
    """Return the context of a client that trusts the authority, and takes a certificate of any
    name, which the test looks at."""
    context = tls.contexts(version)[1]
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(*certificate.files)
    return context


@contextlib.asynccontextmanager
async def connected(ours, address, context, name=HOST):
    """(reader, writer, what the client knows of TLS) of a connection that asks for *name*; "" asks
    for none."""
    reader, writer = await ours.open_connection(*address, ssl=context, server_hostname=name)
    try:
        yield reader, writer, writer.get_extra_info("ssl_object")
    finally:
        await finish(writer)


async def seen(ours, address, context, name=HOST):
    """Return the certificate that a client sees which asks for *name*."""
    async with connected(ours, address, context, name) as (_, _, session):
        return session.getpeercert(True)


async def echoes(reader, writer, data):
    """Tell whether *data* comes back."""
    writer.write(data)
    return await reader.readexactly(len(data)) == data


def shake(server, client, session=None):
    """Return the client's end of a handshake in memory, in which it may resume *session*, after the
    first byte from the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=HOST, session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for call in (
        ours.do_handshake,
        theirs.do_handshake,
        ours.do_handshake,
        theirs.do_handshake,
        ours.do_handshake,
    ):
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
    theirs.write(b".")
    assert ours.read(1) == b"."
    return ours


def test_the_chain_of_a_name(run, ours, tls, chains):
    """A name gets its own chain, whatever its case, its dot or its alphabet; a star stands for one
    label; all else gets the default."""

    async def main():
        certificates = Certificates(*chains.default.files)
        certificates.add("*.Example.org", *chains.wildcard.files)
        certificates.add("www.example.org.", *chains.exact.files)
        certificates.add(BUECHER, *chains.idna.files)
        async with serving(ours, echo, ssl=certificates.context) as address:
            return {asked: await seen(ours, address, client_context(tls), asked) for asked in ASKED}

    labels = {chain.der: label for label, chain in vars(chains).items()}
    assert {asked: labels[der] for asked, der in run(main).items()} == ASKED


def test_a_name_for_a_server_that_runs(run, ours, tls, chains):
    """A chain that is added is served from the next handshake on."""

    async def main():
        certificates = Certificates(*chains.default.files)
        async with serving(ours, echo, ssl=certificates.context) as address:
            assert (
                await seen(ours, address, client_context(tls), "www.example.org")
                == chains.default.der
            )
            certificates.add("www.example.org", *chains.exact.files)
            assert (
                await seen(ours, address, client_context(tls), "www.example.org")
                == chains.exact.der
            )

    run(main)


@pytest.mark.parametrize("name", [None, HOST], ids=["default", "named"])
def test_reload(run, ours, tls, chains, installed, name):
    """After reload() a server that runs has the new chain for new connections, and the old ones go
    on."""

    async def main():
        certificates = (
            Certificates(*installed) if name is None else Certificates(*chains.exact.files)
        )
        if name is not None:
            certificates.add(name, *installed)
        async with serving(ours, echo, ssl=certificates.context) as address:
            async with connected(ours, address, client_context(tls)) as (reader, writer, session):
                assert await echoes(reader, writer, b"before")
                renew(installed, chains.renewed)
                assert await seen(ours, address, client_context(tls)) == chains.default.der
                certificates.reload()
                assert await seen(ours, address, client_context(tls)) == chains.renewed.der
                assert await echoes(reader, writer, b"after")
                assert session.getpeercert(True) == chains.default.der

    run(main)


def spoil(what, files, chains):
    """Do to *files* what reload() cannot take; return the error, and the file that it must name."""
    certificate, key = files
    if what == "no certificate":
        certificate.unlink()
        return FileNotFoundError, certificate
    if what == "no key":
        key.unlink()
        return FileNotFoundError, key
    if what == "another key":
        shutil.copyfile(chains.renewed.key, key)
        return ssl.SSLError, key
    certificate.write_text("no PEM")
    return ssl.SSLError, certificate


@pytest.mark.parametrize("what", ["no certificate", "no key", "another key", "malformed"])
def test_a_reload_that_fails(run, ours, tls, chains, installed, tmp_path, what):
    """A reload() that fails says with which file, and changes nothing, also where others of the
    files are new and good."""

    async def main():
        named = tmp_path / "named.pem", tmp_path / "named.key"
        renew(named, chains.default)
        certificates = Certificates(*named)
        certificates.add("www.example.org", *installed)
        async with serving(ours, echo, ssl=certificates.context) as address:
            renew(named, chains.renewed)
            error, path = spoil(what, installed, chains)
            before = certificates.context
            with pytest.raises(error) as caught:
                certificates.reload()
            assert str(path) in str(caught.value)
            assert caught.value.filename == (str(path) if error is FileNotFoundError else None)
            assert certificates.context is before
            assert await seen(ours, address, client_context(tls)) == chains.default.der
            assert (
                await seen(ours, address, client_context(tls), "www.example.org")
                == chains.default.der
            )

    run(main)


def test_another_type_of_key(run, ours, tls, chains, installed):
    """An ECDSA chain replaces an RSA chain: who can only do RSA is refused, and does not get the
    old one."""

    async def main():
        run.errors_expected = True  # the loop in debug mode reports a handshake that failed
        renew(installed, chains.rsa)
        certificates = Certificates(*installed)
        kept = certificates.context
        only_rsa = client_context(tls, ssl.TLSVersion.TLSv1_2)
        only_rsa.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        async with serving(ours, echo, ssl=kept) as address:
            assert await seen(ours, address, only_rsa) == chains.rsa.der
            renew(installed, chains.default)
            certificates.reload()
            assert await seen(ours, address, client_context(tls)) == chains.default.der
            with pytest.raises(REFUSED):
                await seen(ours, address, only_rsa)
        with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
            shake(kept, only_rsa)

    run(main)


@pytest.mark.parametrize("name", [HOST, "www.example.org"])
def test_client_authority(run, ours, tls, chains, tmp_path, name):
    """With client_authority a client needs a certificate that it has signed, whatever name the
    client asks for."""

    async def main():
        run.errors_expected = True  # as above
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "clients.pem")
        known = Chain(authority, tmp_path / "known", "somebody@example.org")
        stranger = Chain(tls.authority, tmp_path / "stranger", "somebody@example.org")
        certificates = Certificates(
            *chains.default.files, client_authority=tmp_path / "clients.pem"
        )
        certificates.add("www.example.org", *chains.exact.files)
        async with serving(ours, echo, ssl=certificates.context) as address:
            # In TLS 1.3 a client would hear of it only when it reads.
            version = ssl.TLSVersion.TLSv1_2
            async with connected(ours, address, client_context(tls, version, known), name) as (
                reader,
                writer,
                _,
            ):
                assert await echoes(reader, writer, b"hello")
            for certificate in None, stranger:
                with pytest.raises(REFUSED):
                    await seen(ours, address, client_context(tls, version, certificate), name)

    run(main)


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_sessions_of_an_authority_that_is_gone(tls, chains, tmp_path, version):
    """A session is resumed on the context that it began on, also after reload(), and not on the new
    one, where its client is refused."""
    first, second = trustme.CA(), trustme.CA()
    first.cert_pem.write_to_path(tmp_path / "clients.pem")
    certificates = Certificates(*chains.default.files, client_authority=tmp_path / "clients.pem")
    client = client_context(tls, version, Chain(first, tmp_path / "known", "somebody@example.org"))
    kept = certificates.context
    session = shake(kept, client).session
    second.cert_pem.write_to_path(tmp_path / "clients.pem")
    certificates.reload()
    assert shake(kept, client, session).session_reused
    for context, offered in (certificates.context, session), (kept, None):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            shake(context, client, offered)


def test_application_protocols(run, ours, tls, chains):
    """alpn is agreed on by the server's preference, for the default as for a name."""

    async def main():
        certificates = Certificates(*chains.default.files, alpn=["two", "one"])
        certificates.add("www.example.org", *chains.exact.files)
        context = client_context(tls)
        context.set_alpn_protocols(["one", "two"])
        async with serving(ours, echo, ssl=certificates.context) as address:
            for name in HOST, "www.example.org", "":
                async with connected(ours, address, context, name) as (_, _, session):
                    assert session.selected_alpn_protocol() == "two"

    run(main)


def test_configure(run, ours, tls, chains):
    """configure gets each context of each load, once, and what it sets holds for every name."""

    async def main():
        configured = []

        def configure(context):
            configured.append(context)
            context.maximum_version = ssl.TLSVersion.TLSv1_2

        certificates = Certificates(*chains.default.files, configure=configure)
        certificates.add("www.example.org", *chains.exact.files)
        certificates.reload()
        assert len(set(configured)) == len(configured) == 4
        async with serving(ours, echo, ssl=certificates.context) as address:
            for name in HOST, "www.example.org":
                async with connected(ours, address, client_context(tls), name) as (_, _, session):
                    assert session.version() == "TLSv1.2"

    run(main)


def test_a_hello_that_is_asked_for_again(run, ours, tls, chains):
    """A client that must send its hello twice, for want of a curve in common (RFC 8446, 4.1.4),
    gets the chain of the name too."""

    async def main():
        certificates = Certificates(
            *chains.default.files, configure=lambda context: context.set_ecdh_curve("secp521r1")
        )
        certificates.add("www.example.org", *chains.exact.files)
        async with serving(ours, echo, ssl=certificates.context) as address:
            assert (
                await seen(
                    ours, address, client_context(tls, ssl.TLSVersion.TLSv1_3), "www.example.org"
                )
                == chains.exact.der
            )

    run(main)


def test_a_configure_that_fails(chains):
    """What configure raises comes out of add() and reload(), and nothing has changed."""
    fails = []

    def configure(context):
        if fails:
            raise RuntimeError("no")

    certificates = Certificates(*chains.default.files, configure=configure)
    before = certificates.context
    fails.append(True)
    with pytest.raises(RuntimeError):
        certificates.add("www.example.org", *chains.exact.files)
    with pytest.raises(RuntimeError):
        certificates.reload()
    assert certificates.context is before
    fails.clear()
    certificates.add("www.example.org", *chains.exact.files)


NO_NAMES = [
    "",
    ".",
    "*",
    "*.",
    "f*.example.org",
    "*.*.org",
    "a.*.org",
    "a..org",
    ".org",
    "192.0.2.1",
    "::1",
    "a.org:443",
    "a b",
    "b" * 64,
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name(chains, name):
    """What no client can ask for is refused."""
    certificates = Certificates(*chains.default.files)
    with pytest.raises(ValueError, match="is no (host )?name"):
        certificates.add(name, *chains.exact.files)


def test_a_name_twice(chains):
    """A name is added once, however it is spelt."""
    certificates = Certificates(*chains.default.files)
    certificates.add(BUECHER, *chains.idna.files)
    with pytest.raises(ValueError, match="added before"):
        certificates.add("XN--bcher-kva.example.", *chains.idna.files)


def test_one_string_of_protocols(chains):
    """alpn="h2" is refused: it would be the protocols h and 2."""
    with pytest.raises(TypeError, match=r"\('h2',\)"):
        Certificates(*chains.default.files, alpn="h2")


@pytest.mark.parametrize("what", ["missing", "malformed"])
def test_a_client_authority_that_cannot_be_read(chains, tmp_path, what):
    """The file of client_authority is named in the error."""
    path = tmp_path / "clients.pem"
    if what == "malformed":
        path.write_text("no PEM")
    with pytest.raises(OSError, match="clients.pem"):
        Certificates(*chains.default.files, client_authority=path)


def test_passwords(tls, chains, tmp_path):
    """An encrypted key needs its password, or a function that returns it; without, nobody is asked
    on the terminal."""
    plain = serialization.load_pem_private_key(chains.default.key.read_bytes(), None)
    path = tmp_path / "secret.pem"
    encryption = serialization.BestAvailableEncryption(b"open")
    path.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    for password in "open", b"open", lambda: "open":
        certificates = Certificates(chains.default.certificate, path, password=password)
        certificates.reload()
        assert (
            shake(certificates.context, client_context(tls)).getpeercert(True) == chains.default.der
        )
    for password, message in (None, "give its password"), ("shut", ""):
        with pytest.raises(ssl.SSLError, match=f"{message}.*secret.pem"):
            Certificates(chains.default.certificate, path, password=password)


def test_old_contexts_are_freed(chains):
    """What reload() has replaced is freed when no connection has it any more."""
    certificates = Certificates(*chains.default.files)
    old = weakref.ref(certificates.context)
    certificates.reload()
    gc.collect()
    assert old() is None
