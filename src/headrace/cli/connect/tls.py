"""TLS for a user: the context that the options ask for, the words of protocols that lead to it, and
what went wrong."""

from __future__ import annotations

import argparse
import errno
import re
import ssl
import time
from typing import Any

import headrace
from headrace.cli.connect.pipes import Failure

SMTP_REPLY = rb"\d\d\d[ \r\n]"
# By protocol, what leads to TLS: (what is sent, what the last line of the answer looks like, how it
# begins if all is well). SMTP: RFC 3207; IMAP: RFC 9051, 6.2.1; POP3: RFC 2595, 4; FTP: RFC 4217,
# 4, whose answers look like SMTP's (RFC 959, 4.2).
STARTTLS: dict[str, tuple[tuple[bytes, bytes, bytes], ...]] = {
    "smtp": (
        (b"", SMTP_REPLY, b"220"),
        (b"EHLO localhost\r\n", SMTP_REPLY, b"250"),
        (b"STARTTLS\r\n", SMTP_REPLY, b"220"),
    ),
    "imap": ((b"", rb"\* ", b"* OK"), (b"A STARTTLS\r\n", rb"A ", b"A OK")),
    "pop3": ((b"", rb"[+-]", b"+OK"), (b"STLS\r\n", rb"[+-]", b"+OK")),
    "ftp": ((b"", SMTP_REPLY, b"220"), (b"AUTH TLS\r\n", SMTP_REPLY, b"234")),
}

TRUST = (
    "nobody trusted here has signed it: --ca FILE trusts an authority, "
    "--insecure goes on without checking"
)
OTHER_NAME = "--server-name NAME checks for another one, --insecure goes on without checking"
# By OpenSSL's number of what is wrong with a certificate (X509_V_ERR_…,
# X509_STORE_CTX_get_error(3)), what to do.
CERTIFICATE_ADVICE = {
    9: "it is not valid yet: is the clock of this machine right?",
    10: "it has expired: the server needs a new one, unless the clock of this machine is wrong",
    18: TRUST,
    19: TRUST,
    20: TRUST,
    21: TRUST,
    62: OTHER_NAME,
    64: OTHER_NAME,
}
NO_TLS = "the peer does not speak TLS here: leave out --tls, or begin in plain text with --starttls"
# By OpenSSL's reason for a handshake or a session to fail, what to do. The first two depend on
# OpenSSL's version.
TLS_ADVICE = {
    "WRONG_VERSION_NUMBER": NO_TLS,
    "RECORD_LAYER_FAILURE": NO_TLS,
    # Our own hello that comes back from an echo, or something else that is nearly a record.
    "UNEXPECTED_MESSAGE": NO_TLS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate of ours: --cert FILE, and "
    "--key FILE",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer speaks none of these protocols: change --alpn",
}
# What a server of TLS says to a client in plain text, if it says anything: a record with an alert
# (RFC 8446, 5.1 and 6).
ALERT = re.compile(rb"\x15\x03[\x00-\x04]\x00\x02[\x01\x02].", re.DOTALL)


class Remembering(ssl.SSLObject):
    """Puts a certificate that it refuses into the error, as ``certificate``, in the form of
    getpeercert()."""

    def do_handshake(self) -> None:
        """See ssl.SSLObject."""
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            error.certificate = unverified_certificate(self)  # type: ignore[attr-defined]
            raise


def unverified_certificate(session: ssl.SSLObject) -> dict[str, Any]:
    """Return the peer's certificate, verified or not, in the form of getpeercert(); {} for none."""
    # Python decodes no certificate that it has not verified, but for this private method of the ssl
    # module.
    chain = session._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return chain[0].get_info() if chain else {}


def is_alert(data: bytes) -> bool:
    """Tell whether *data* is an alert of TLS in plain text, and nothing more."""
    return ALERT.fullmatch(data) is not None


def context_of(options: argparse.Namespace, name: str | None) -> ssl.SSLContext | None:
    """Return the context that *options* ask for. Raises: ValueError where they contradict each
    other; OSError for a bad file."""
    if not (options.tls or options.starttls):
        for option in ("insecure", "ca", "cert", "key", "server_name", "alpn"):
            if getattr(options, option):
                raise ValueError(f"--{option.replace('_', '-')} needs --tls or --starttls")
        return None
    if options.key and not options.cert:
        raise ValueError("--key needs --cert, the certificate that the key belongs to")
    if name is None and not options.insecure:
        raise ValueError(
            "TLS over a Unix socket needs --server-name NAME, the name to verify, or --insecure"
        )
    try:
        context = ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise ValueError(
            f"--ca {options.ca}: {error.strerror or error}: it must be a file of certificates in "
            "PEM"
        ) from None
    context.sslobject_class = Remembering
    if options.cert:
        try:
            context.load_cert_chain(options.cert, options.key)
        except OSError as error:
            raise ValueError(
                f"--cert {options.cert}: {error.strerror or error}: certificate and key must be in "
                "PEM and match"
            ) from None
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.alpn:
        context.set_alpn_protocols(options.alpn.split(","))
    return context


async def starttls(
    protocol: str, reader: headrace.StreamReader, writer: headrace.StreamWriter
) -> None:
    """Speak *protocol* up to where TLS begins. Raises: Failure where the server does not go along;
    OSError."""
    for command, last, wanted in STARTTLS[protocol]:
        writer.write(command)
        line = b""
        while not re.match(last, line):
            try:
                line = await reader.readline()
            except ValueError:  # longer than the reader's limit
                line = b""
            if not line.endswith(b"\n"):
                raise Failure(
                    f"STARTTLS: no answer to {command!r} in the words of {protocol}: is this its "
                    "port?"
                )
        if not line.upper().startswith(wanted):
            raise Failure(
                f"STARTTLS: the server answered {line!r} to {command or b'nothing yet'!r}: it "
                "offers no TLS here"
            )


def handshake_failure(error: OSError) -> str:
    """Return why there is no TLS, and what to do where something can be done."""
    if isinstance(error, ConnectionResetError):
        how = "reset" if error.errno == errno.ECONNRESET else "ended"
        return f"the peer {how} the connection in the handshake: does it speak TLS here?"
    return broken(error)


def broken(error: OSError) -> str:
    """Return what *error* did to a connection, and what to do where something can be done."""
    if isinstance(error, headrace.UpgradeError):
        return (
            f"{error.plaintext_bytes} bytes came in plain text before it: "
            "does the server want --starttls, or did somebody put them in?"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = CERTIFICATE_ADVICE.get(error.verify_code, "--insecure goes on without checking")
        if advice is OTHER_NAME and (certificate := getattr(error, "certificate", None)):
            advice = f"it is for {_names(certificate)}: {advice}"
        return f"the certificate was refused: {error.verify_message.rstrip('.')}: {advice}"
    if isinstance(error, ssl.SSLError):
        return TLS_ADVICE.get(error.reason or "", f"TLS failed: {error.reason or error}")
    if error.errno == errno.ECONNRESET:
        return "the peer reset the connection"
    return f"the connection broke: {error.strerror or str(error) or type(error).__name__}"


def certificate_words(certificate: dict[str, Any]) -> list[str]:
    """Return lines about *certificate*, which is as SSLObject.getpeercert() returns it."""

    def named(field: str) -> str:
        return (
            ", ".join(
                f"{key}={value}" for part in certificate.get(field, ()) for key, value in part
            )
            or "nobody"
        )

    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86400
    expiry = f"expires in {days:.0f} days" if days >= 0 else f"EXPIRED {-days:.0f} days ago"
    return [
        f"certificate of {named('subject')}; names: {_names(certificate)}",
        f"signed by {named('issuer')}; {expiry} ({certificate['notAfter']})",
    ]


def _names(certificate: dict[str, Any]) -> str:
    return ", ".join(str(value) for _, value in certificate.get("subjectAltName", ())) or "no name"
