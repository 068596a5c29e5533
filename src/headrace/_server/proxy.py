"""The PROXY protocol, receiving side: what a proxy says of the connection that it passes on. Bytes
in, a header out; no I/O.

Source: proxy-protocol.txt of HAProxy, "The PROXY protocol, versions 1 & 2"; the sections named
below are its own.
"""

import os
import re
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TypeAlias

# As the socket module writes addresses: IPv4, IPv6, the path of a Unix socket, an abstract one;
# None where the header names none.
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes | None

# Section 2.1: the longest line that a sender may write, CRLF included.
MAX_V1_BYTES = 107
# Section 2.2 allows 65,551, and means 536, what fits in the smallest segment of TCP. Some proxies
# send the client's certificate too, which takes a few thousand (not measured). This is nginx's
# bound, NGX_PROXY_PROTOCOL_MAX_HEADER.
MAX_HEADER_BYTES = 4096

# How a header may begin. Whatever agrees with none of these, however short, is none.
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_BEGINNINGS = (
    b"PROXY TCP4 ",
    b"PROXY TCP6 ",
    b"PROXY UNKNOWN ",
    b"PROXY UNKNOWN\r\n",
    V2_SIGNATURE,
)
_V1_FAMILIES = {b"PROXY TCP4 ": socket.AF_INET, b"PROXY TCP6 ": socket.AF_INET6}
# What is in no line with addresses: it ends the wait for a CRLF that a sender of bare LFs, say,
# would never send.
_V1_FOREIGN = re.compile(rb"[^0-9A-Fa-f.: \r]|\r[^\n]")
_V1_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")

_V2_FIXED_BYTES = 16
# The 14th byte, family and protocol, and how many bytes its addresses take. UDP's are not here: a
# byte stream carries none.
_UNSPEC, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_V2_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}


class _TLV(IntEnum):
    """The types of fields that have a meaning here; the SSL_ ones are fields within SSL."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    NETNS = 0x30


# Each of these says one thing of the connection. Were there two, the first would be the truth to
# one program and the last to the next.
_SINGLE = frozenset(_TLV) - {_TLV.NOOP}


class ProxyError(ValueError):
    """The peer sent something else than a PROXY header, or one that breaks a rule; the message says
    which, and shows up to 40 bytes.

    Abort the connection: nothing that follows can be trusted.
    """


class ProxySSLFlags(IntFlag):
    """What the proxy knows of its client's TLS, the flags PP2_CLIENT_* of section 2.2.6. Bits
    without a name are kept."""

    SSL = 0x01
    CERT_CONN = 0x02
    CERT_SESS = 0x04


@dataclass(frozen=True, slots=True)
class ProxySSL:
    """The client's TLS connection to the proxy, section 2.2.6. What the proxy did not send is None.

    ``verify`` is 0 if the client's certificate was verified. It may be 0 for a client without a
    certificate as well: look for CERT_CONN or CERT_SESS in ``client`` too. ``cn`` is of the
    client's certificate, ``sig_alg`` and ``key_alg`` are of the proxy's; ``version`` (of TLS) and
    ``cipher`` are the connection's. ``tlvs`` are all fields as they came, as (type, value), those
    without a name here among them.
    """

    client: ProxySSLFlags
    verify: int
    version: str | None = None
    cn: str | None = None
    cipher: str | None = None
    sig_alg: str | None = None
    key_alg: str | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a PROXY header says, of either version.

    ``source`` is the client's address, ``destination`` the one that it connected to: ``(host,
    port)``, for IPv6 ``(host, port, 0, 0)``, for a Unix socket its path, '' where it has none,
    bytes where it is abstract. Both are None where the proxy does not say (UNKNOWN, LOCAL, UNSPEC):
    the connection's own addresses stand. ``local``: the proxy speaks for itself, to check our
    health, say.

    ``tlvs`` are the fields behind the addresses (version 2), as (type, value) in their order,
    without padding. The others are those of a known type, decoded, or None: ``alpn`` (RFC 7301),
    ``authority``, the host name that the client asked for, ``unique_id``, ``netns``, the name of a
    network namespace, and ``ssl``.
    """

    version: int
    source: Address
    destination: Address
    local: bool = False
    tlvs: tuple[tuple[int, bytes], ...] = ()
    alpn: bytes | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    netns: str | None = None
    ssl: ProxySSL | None = None


def parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read the PROXY header, of version 1 or 2, that *data* begins with.

    Args:
        data: everything that the connection has brought so far.

    Returns the header and how many bytes it took; the bytes behind it are the stream's. Returns
    None if more bytes are needed, which is never so with MAX_HEADER_BYTES or more. What a LOCAL
    header holds is skipped unread (section 2.2).

    Raises ProxyError if *data* is no such header, or one for datagrams. It does not wait for the
    end: a wrong first byte is enough, and each of the 16 fixed bytes of version 2. Addresses and
    fields are read once the header is whole.
    """
    if not any(data.startswith(beginning[: len(data)]) for beginning in _BEGINNINGS):
        what = "that is TLS, and " if data[:1] == b"\x16" else ""
        raise _broken(
            f"{what}a connection must begin with a PROXY header, from a proxy that is set to send "
            "one",
            data,
        )
    return _parse_v1(data) if data.startswith(b"P") else _parse_v2(data)


def _broken(rule: str, shown: bytes) -> ProxyError:
    """Return the error for a header that breaks *rule*."""
    return ProxyError(f"{rule}; got {shown[:40]!r}{'...' if len(shown) > 40 else ''}")


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a line, of which *data* has at least the first byte."""
    family = _V1_FAMILIES.get(data[:11])
    line = data[:MAX_V1_BYTES]
    end = line.find(b"\r\n")
    if family is not None and _V1_FOREIGN.search(line, 11, end if end >= 0 else len(line)):
        raise _broken(
            "PROXY v1: only addresses and ports, single spaces and a CRLF may follow TCP4 or TCP6",
            line,
        )
    if end < 0:
        if len(line) == MAX_V1_BYTES:
            raise _broken(
                f"PROXY v1: the line must end, with CRLF, within {MAX_V1_BYTES} bytes", line
            )
        return None
    if family is None:
        return ProxyHeader(1, None, None), end + 2
    fields = line[11:end].split(b" ")
    if len(fields) != 4:
        raise _broken(
            "PROXY v1: two addresses and two ports must follow TCP4 or TCP6, with one space "
            "between each",
            line,
        )
    source, destination, source_port, destination_port = fields
    return ProxyHeader(
        1,
        _v1_address(family, source, source_port),
        _v1_address(family, destination, destination_port),
    ), end + 2


def _v1_address(family: socket.AddressFamily, host: bytes, port: bytes) -> Address:
    """Return the address that *host* and *port* are the text of. It is written anew: there are many
    ways to write IPv6."""
    if not _V1_PORT.fullmatch(port) or int(port) > 65535:
        raise _broken(
            "PROXY v1: a port must be a decimal number from 0 to 65535, without leading zeros", port
        )
    try:
        return _inet(family, socket.inet_pton(family, host.decode("ascii")), int(port))
    except OSError:
        raise _broken(
            f"PROXY v1: an address must be one of {family.name}, as inet_pton(3) reads it", host
        ) from None


def _inet(family: socket.AddressFamily, host: bytes, port: int) -> Address:
    """Return the address as socket.getpeername() would."""
    text = socket.inet_ntop(family, host)
    return (text, port) if family == socket.AF_INET else (text, port, 0, 0)


def _unix(path: bytes) -> Address:
    """Return the address that *path*, a sun_path with NULs behind it, is. How many NULs end an
    abstract name is not in the header."""
    if path.startswith(b"\0"):
        return path.rstrip(b"\0") or ""
    return os.fsdecode(path.partition(b"\0")[0])


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a binary header, of which *data* may have any part. Checks each of the fixed bytes as
    soon as it is there."""
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise _broken(
            "PROXY v2: the 13th byte must be version 2 with the command LOCAL or PROXY, 0x20 or "
            "0x21",
            data,
        )
    local = len(data) > 12 and data[12] == 0x20
    if len(data) > 13 and not local and data[13] not in _V2_ADDRESS_BYTES:
        raise _broken(
            "PROXY v2: the 14th byte must be STREAM (no datagrams) over INET, INET6 or UNIX, or "
            "UNSPEC",
            data,
        )
    if len(data) < _V2_FIXED_BYTES:
        return None
    size = _V2_FIXED_BYTES + int.from_bytes(data[14:16])
    if size > MAX_HEADER_BYTES:
        raise _broken(
            f"PROXY v2: the header is {size} bytes long, and {MAX_HEADER_BYTES} are accepted", data
        )
    start = _V2_FIXED_BYTES + (0 if local else _V2_ADDRESS_BYTES[data[13]])
    if size < start:
        raise _broken(
            f"PROXY v2: the length must be at least {start - _V2_FIXED_BYTES}, what the addresses "
            "take",
            data,
        )
    if len(data) < size:
        return None
    header = ProxyHeader(2, None, None, local=True) if local else _v2_header(data[:size], start)
    return header, size


def _v2_header(data: bytes, start: int) -> ProxyHeader:
    """Return what *data* says, a whole header of the command PROXY whose fields begin at offset
    *start*."""
    source, destination = _v2_addresses(data[13], data[_V2_FIXED_BYTES:start])
    tlvs = _split(data[start:])
    _check_sum(data, start, tlvs)
    known = dict(tlvs)
    if len(known.get(_TLV.UNIQUE_ID, b"")) > 128:
        raise _broken("PROXY v2: UNIQUE_ID must have at most 128 bytes", known[_TLV.UNIQUE_ID])
    return ProxyHeader(
        version=2,
        source=source,
        destination=destination,
        tlvs=tuple(each for each in tlvs if each[0] != _TLV.NOOP),
        alpn=known.get(_TLV.ALPN),
        authority=_text(known, _TLV.AUTHORITY, "utf-8"),
        unique_id=known.get(_TLV.UNIQUE_ID),
        netns=_text(known, _TLV.NETNS),
        ssl=_ssl(known[_TLV.SSL]) if _TLV.SSL in known else None,
    )


def _v2_addresses(kind: int, block: bytes) -> tuple[Address, Address]:
    """Return source and destination, of the *block* of addresses that belongs to *kind*, the 14th
    byte."""
    if kind == _UNSPEC:
        return None, None
    if kind == _UNIX_STREAM:
        return _unix(block[:108]), _unix(block[108:])
    family, size = (socket.AF_INET, 4) if kind == _TCP4 else (socket.AF_INET6, 16)
    ports = struct.unpack_from("!HH", block, 2 * size)
    return _inet(family, block[:size], ports[0]), _inet(family, block[size : 2 * size], ports[1])


def _split(data: bytes) -> list[tuple[int, bytes]]:
    """Return the fields that *data* consists of, to its last byte."""
    found: list[tuple[int, bytes]] = []
    seen: set[int] = set()
    at = 0
    while at < len(data):
        kind = data[at]
        end = at + 3 + int.from_bytes(data[at + 1 : at + 3])
        if end > len(data):
            raise _broken(
                "PROXY v2: the last TLV must end where the header, or the SSL around it, ends",
                data[at:],
            )
        if kind in _SINGLE and kind in seen:
            raise _broken(f"PROXY v2: there must be no second {_TLV(kind).name}", data[at:end])
        seen.add(kind)
        found.append((kind, data[at + 3 : end]))
        at = end
    return found


def _text(known: dict[int, bytes], kind: _TLV, encoding: str = "ascii") -> str | None:
    """Return the field of *kind* as text, None if there is none."""
    value = known.get(kind)
    try:
        return None if value is None else value.decode(encoding)
    except UnicodeDecodeError as error:
        raise _broken(f"PROXY v2: {kind.name} must be {encoding.upper()}", error.object) from None


def _ssl(value: bytes) -> ProxySSL:
    """Return what *value*, of an SSL field, says."""
    if len(value) < 5:
        raise _broken("PROXY v2: SSL must have at least 5 bytes", value)
    tlvs = _split(value[5:])
    known = dict(tlvs)
    return ProxySSL(
        client=ProxySSLFlags(value[0]),
        verify=int.from_bytes(value[1:5]),
        version=_text(known, _TLV.SSL_VERSION),
        cn=_text(known, _TLV.SSL_CN, "utf-8"),
        cipher=_text(known, _TLV.SSL_CIPHER),
        sig_alg=_text(known, _TLV.SSL_SIG_ALG),
        key_alg=_text(known, _TLV.SSL_KEY_ALG),
        tlvs=tuple(tlvs),
    )


def _check_sum(header: bytes, at: int, tlvs: list[tuple[int, bytes]]) -> None:
    """Check the CRC32C of *header*, if it is among its *tlvs*, which begin at offset *at* (section
    2.2.3)."""
    for kind, value in tlvs:
        at += 3
        if kind == _TLV.CRC32C and len(value) != 4:
            raise _broken("PROXY v2: CRC32C must have 4 bytes", value)
        if kind == _TLV.CRC32C and int.from_bytes(value) != _crc32c(
            header[:at] + bytes(4) + header[at + 4 :]
        ):
            raise _broken("PROXY v2: CRC32C does not match the header", value)
        at += len(value)


def _remainder(byte: int) -> int:
    """Return what CRC32C makes of one byte, lowest bit first: 0x82F63B78 is its polynomial in that
    order (RFC 9260, Appendix A)."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_REMAINDERS = tuple(map(_remainder, range(256)))


def _crc32c(data: bytes) -> int:
    """Return the CRC32C of *data*."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _REMAINDERS[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
