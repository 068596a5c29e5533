"""The PROXY protocol: what headers say, which are refused and how early, and that no bytes whatever
do anything else."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import SHRINKING_S, examples

from headrace._server import proxy
from headrace._server.proxy import (
    MAX_HEADER_BYTES,
    ProxyError,
    ProxyHeader,
    ProxySSL,
    ProxySSLFlags,
    parse,
)

pytestmark = pytest.mark.timeout(SHRINKING_S)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31
BLOCK4 = bytes([192, 168, 0, 1, 192, 168, 0, 11]) + struct.pack("!HH", 56324, 443)
BLOCK6 = (
    bytes(15) + b"\x01" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02" + struct.pack("!HH", 1, 65535)
)
CLIENT, SERVER = ("192.168.0.1", 56324), ("192.168.0.11", 443)


def v2(kind: int, rest: bytes, command: int = 0x21) -> bytes:
    """Return a header of version 2 with *rest* behind its 16 fixed bytes."""
    return SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(rest)) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def fields(*tlvs: tuple[int, bytes]) -> bytes:
    """Return a header for IPv4 with *tlvs*."""
    return v2(TCP4, BLOCK4 + b"".join(tlv(*each) for each in tlvs))


def unix_block(source: bytes, destination: bytes) -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def crc32c(data: bytes) -> int:
    """Return the CRC32C of *data* the slow way, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def summed(*before: tuple[int, bytes], after: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """Return a header for IPv4 with a right CRC32C between *before* and *after*."""
    blank = fields(*before, (0x03, bytes(4)), *after)
    return fields(*before, (0x03, struct.pack("!I", crc32c(blank))), *after)


SSL_VALUE = (
    b"\x05"
    + struct.pack("!I", 7)
    + tlv(0x21, b"TLSv1.3")
    + tlv(0x22, "Zoë".encode())
    + tlv(0x23, b"AES")
    + tlv(0x28, b"DER")
)
SSL_ALGORITHMS = b"\x81" + bytes(4) + tlv(0x25, b"RSA2048") + tlv(0x24, b"RSA-SHA256")

VALID = {
    # The example of section 2.1.
    "TCP4": (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", ProxyHeader(1, CLIENT, SERVER)),
    "TCP4 extremes": (
        b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
        ProxyHeader(1, ("255.255.255.255", 65535), ("0.0.0.0", 0)),
    ),
    "TCP6": (
        b"PROXY TCP6 ::1 2001:DB8::2 1 65535\r\n",
        ProxyHeader(1, ("::1", 1, 0, 0), ("2001:db8::2", 65535, 0, 0)),
    ),
    "TCP6 longest": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % (b"ffff:" * 7 + b"ffff", b"ffff:" * 7 + b"ffff"),
        ProxyHeader(1, ("ffff:" * 7 + "ffff", 65535, 0, 0), ("ffff:" * 7 + "ffff", 65535, 0, 0)),
    ),
    # As inet_ntop() writes it, and so proxies.
    "TCP6 mapped": (
        b"PROXY TCP6 ::ffff:10.0.0.1 ::ffff:a00:2 1 2\r\n",
        ProxyHeader(1, ("::ffff:10.0.0.1", 1, 0, 0), ("::ffff:10.0.0.2", 2, 0, 0)),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", ProxyHeader(1, None, None)),
    "UNKNOWN with anything": (b"PROXY UNKNOWN a\rb\n\0\xff\r\r\n", ProxyHeader(1, None, None)),
    "UNKNOWN longest": (b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n", ProxyHeader(1, None, None)),
    "v2 TCP4": (v2(TCP4, BLOCK4), ProxyHeader(2, CLIENT, SERVER)),
    "v2 TCP6": (v2(TCP6, BLOCK6), ProxyHeader(2, ("::1", 1, 0, 0), ("2001:db8::2", 65535, 0, 0))),
    "v2 UNIX": (
        v2(UNIX, unix_block(b"/run/\xff", b"s" * 108)),
        ProxyHeader(2, os.fsdecode(b"/run/\xff"), "s" * 108),
    ),
    "v2 UNIX abstract, unnamed": (
        v2(UNIX, unix_block(b"\0a\0b", b"")),
        ProxyHeader(2, b"\0a\0b", ""),
    ),
    "v2 UNSPEC": (
        v2(0x00, tlv(0x05, b"id")),
        ProxyHeader(2, None, None, tlvs=((5, b"id"),), unique_id=b"id"),
    ),
    "v2 LOCAL": (v2(0x00, b"", 0x20), ProxyHeader(2, None, None, local=True)),
    "v2 LOCAL without addresses": (v2(TCP4, b"", 0x20), ProxyHeader(2, None, None, local=True)),
    "v2 LOCAL skips": (v2(0xEE, b"\x03\x00\xff", 0x20), ProxyHeader(2, None, None, local=True)),
    "ALPN": (fields((0x01, b"h2")), ProxyHeader(2, CLIENT, SERVER, tlvs=((1, b"h2"),), alpn=b"h2")),
    "AUTHORITY": (
        fields((0x02, "é.org".encode())),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((2, "é.org".encode()),), authority="é.org"),
    ),
    "AUTHORITY empty": (
        fields((0x02, b"")),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((2, b""),), authority=""),
    ),
    "UNIQUE_ID": (
        fields((0x05, b"\xff" * 128)),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((5, b"\xff" * 128),), unique_id=b"\xff" * 128),
    ),
    "NETNS": (
        fields((0x30, b"blue")),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((0x30, b"blue"),), netns="blue"),
    ),
    "NOOP": (fields((0x04, b"\xff\xff"), (0x04, b"")), ProxyHeader(2, CLIENT, SERVER)),
    "unknown types": (
        fields((0xE0, b"1"), (0x00, b""), (0xE0, b"2")),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((0xE0, b"1"), (0, b""), (0xE0, b"2"))),
    ),
    "SSL": (
        fields((0x20, SSL_VALUE)),
        ProxyHeader(
            2,
            CLIENT,
            SERVER,
            tlvs=((0x20, SSL_VALUE),),
            ssl=ProxySSL(
                ProxySSLFlags.SSL | ProxySSLFlags.CERT_SESS,
                7,
                version="TLSv1.3",
                cn="Zoë",
                cipher="AES",
                tlvs=((0x21, b"TLSv1.3"), (0x22, "Zoë".encode()), (0x23, b"AES"), (0x28, b"DER")),
            ),
        ),
    ),
    "SSL algorithms": (
        fields((0x20, SSL_ALGORITHMS)),
        ProxyHeader(
            2,
            CLIENT,
            SERVER,
            tlvs=((0x20, SSL_ALGORITHMS),),
            ssl=ProxySSL(
                ProxySSLFlags(0x81),
                0,
                sig_alg="RSA-SHA256",
                key_alg="RSA2048",
                tlvs=((0x25, b"RSA2048"), (0x24, b"RSA-SHA256")),
            ),
        ),
    ),
    "longest": (
        fields((0xE0, bytes(MAX_HEADER_BYTES - 31))),
        ProxyHeader(2, CLIENT, SERVER, tlvs=((0xE0, bytes(MAX_HEADER_BYTES - 31)),)),
    ),
}

INVALID = {
    b"G": "begin with a PROXY header",
    b"\x16": "begin with a PROXY header",
    b"p": "begin with a PROXY header",
    b"PROXY\t": "begin with a PROXY header",
    b"PROXY  ": "begin with a PROXY header",
    b"PROXY TCP5": "begin with a PROXY header",
    b"PROXY TCP4\r": "begin with a PROXY header",
    b"PROXY UNKNOWNS": "begin with a PROXY header",
    b"PROXY UNKNOWN\n": "begin with a PROXY header",
    b"PROXY UNKNOWN\r\r": "begin with a PROXY header",
    SIGNATURE[:11] + b"\r": "begin with a PROXY header",
    b"PROXY TCP4 1.2.3.4\n": "single spaces and a CRLF",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r": "single spaces and a CRLF",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r ": "single spaces and a CRLF",
    b"PROXY TCP4 1.2.3.4\t": "single spaces and a CRLF",
    b"PROXY TCP6 fe80::1%": "single spaces and a CRLF",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 +": "single spaces and a CRLF",
    b"PROXY TCP4 ".ljust(107, b"1"): "within 107 bytes",
    b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r": "within 107 bytes",
    b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n": "within 107 bytes",
    b"PROXY TCP4 \r\n": "two addresses and two ports",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n": "two addresses and two ports",
    b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n": "two addresses and two ports",
    b"PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n": "two addresses and two ports",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n": "two addresses and two ports",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n": "two addresses and two ports",
    b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n": "AF_INET,",
    b"PROXY TCP4 1.2.3.4 5.6.7.256 1 2\r\n": "AF_INET,",
    b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n": "AF_INET,",
    b"PROXY TCP4 ::1 ::1 1 2\r\n": "AF_INET,",
    b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n": "AF_INET6,",
    b"PROXY TCP6 ::1 1::2::3 1 2\r\n": "AF_INET6,",
    b"PROXY TCP6 ::1 12345:: 1 2\r\n": "AF_INET6,",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n": "from 0 to 65535",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 100000\r\n": "from 0 to 65535",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n": "from 0 to 65535",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n": "from 0 to 65535",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 a 2\r\n": "from 0 to 65535",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n": "from 0 to 65535",
    SIGNATURE + b"\x11": "13th byte",
    SIGNATURE + b"\x31": "13th byte",
    SIGNATURE + b"\x22": "13th byte",
    SIGNATURE + b"\x2f": "13th byte",
    SIGNATURE + b"\x21\x12": "no datagrams",
    SIGNATURE + b"\x21\x22": "no datagrams",
    SIGNATURE + b"\x21\x32": "no datagrams",
    SIGNATURE + b"\x21\x01": "14th byte",
    SIGNATURE + b"\x21\x10": "14th byte",
    SIGNATURE + b"\x21\x13": "14th byte",
    SIGNATURE + b"\x21\x41": "14th byte",
    SIGNATURE + b"\x21\x11\x0f\xf1": "4097 bytes long",
    SIGNATURE + b"\x20\x00\xff\xff": "65551 bytes long",
    SIGNATURE + b"\x21\x11\x00\x0b": "at least 12",
    SIGNATURE + b"\x21\x21\x00\x23": "at least 36",
    SIGNATURE + b"\x21\x31\x00\xd7": "at least 216",
    v2(TCP4, BLOCK4 + b"\x04"): "last TLV",
    v2(TCP4, BLOCK4 + b"\x04\0"): "last TLV",
    v2(TCP4, BLOCK4 + b"\x04\0\x01"): "last TLV",
    v2(TCP4, BLOCK4 + tlv(0x04, b"") + b"\xe0\xff\xff"): "last TLV",
    v2(0x00, b"\x04\0\x01"): "last TLV",
    fields((0x01, b"a"), (0x01, b"a")): "no second ALPN",
    fields((0x02, b"a"), (0x04, b""), (0x02, b"b")): "no second AUTHORITY",
    fields((0x03, bytes(4)), (0x03, bytes(4))): "no second CRC32C",
    fields((0x05, b""), (0x05, b"")): "no second UNIQUE_ID",
    fields((0x20, bytes(5)), (0x20, bytes(5))): "no second SSL",
    fields((0x30, b""), (0x30, b"")): "no second NETNS",
    fields((0x20, bytes(5) + tlv(0x22, b"a") * 2)): "no second SSL_CN",
    fields((0x02, b"\xff")): "AUTHORITY must be UTF-8",
    fields((0x30, b"\xc3\xab")): "NETNS must be ASCII",
    fields((0x05, bytes(129))): "at most 128 bytes",
    fields((0x20, bytes(4))): "SSL must have at least 5 bytes",
    fields((0x20, bytes(5) + b"\x21\0")): "last TLV",
    # The TLV inside goes on to the end of the header, and so past the one around it.
    fields((0x20, bytes(5) + b"\x21\0\x03"), (0x04, b"")): "last TLV",
    fields((0x20, bytes(5) + tlv(0x21, b"\xff"))): "SSL_VERSION must be ASCII",
    fields((0x20, bytes(5) + tlv(0x22, b"\xff"))): "SSL_CN must be UTF-8",
    fields((0x20, bytes(5) + tlv(0x23, b"\xff"))): "SSL_CIPHER must be ASCII",
    fields((0x20, bytes(5) + tlv(0x24, b"\xff"))): "SSL_SIG_ALG must be ASCII",
    fields((0x20, bytes(5) + tlv(0x25, b"\xff"))): "SSL_KEY_ALG must be ASCII",
    fields((0x03, bytes(3))): "CRC32C must have 4 bytes",
    fields((0x03, bytes(5))): "CRC32C must have 4 bytes",
    fields((0x03, bytes(4))): "CRC32C does not match",
}


def outcome(data: bytes) -> object:
    """Return what parse() returns for *data*, or ProxyError if it raises that."""
    try:
        return parse(data)
    except ProxyError:
        return ProxyError


def check_each_prefix(data: bytes) -> None:
    """Fail unless parse() waits, and then makes up its mind once, for a header exactly at its last
    byte."""
    outcomes = [outcome(data[:size]) for size in range(len(data) + 1)]
    decided = next((size for size, each in enumerate(outcomes) if each is not None), len(outcomes))
    assert decided > 0
    assert all(each == outcomes[decided] for each in outcomes[decided:])
    if decided < len(outcomes) and isinstance(outcomes[decided], tuple):
        assert outcomes[decided][1] == decided


@pytest.mark.parametrize("name", VALID)
def test_valid(name: str) -> None:
    """A valid header says what it says, whatever follows it; each shorter piece of it is not
    enough."""
    data, header = VALID[name]
    assert parse(data) == (header, len(data))
    assert parse(data + b"GET / HTTP/1.1\r\n\r\n") == parse(data + data) == (header, len(data))
    assert [parse(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("data", INVALID)
def test_invalid(data: bytes) -> None:
    """What breaks a rule is refused at the byte that breaks it, with the rule, and whatever
    follows."""
    with pytest.raises(ProxyError, match=INVALID[data]):
        parse(data)
    with pytest.raises(ProxyError):
        parse(data + b"\r\n" + bytes(MAX_HEADER_BYTES))
    if data != b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n":  # which the byte before has settled
        assert parse(data[:-1]) is None


def test_first_byte() -> None:
    """Only P and CR can begin a header: any other first byte is refused at once."""
    assert [first for first in range(256) if outcome(bytes([first])) is None] == [
        ord("\r"),
        ord("P"),
    ]


def test_checksum() -> None:
    """A right CRC32C is accepted wherever it stands; with one bit of addresses, values or the sum
    itself changed, it is wrong."""
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogues
    for data in (
        summed(),
        summed((0x01, b"h2")),
        summed(after=((0xE0, b"x"),)),
        summed((0x04, b""), after=((0x04, b"pad"),)),
    ):
        header, size = parse(data)
        assert size == len(data)
        position = data.index(b"\x03\x00\x04")
        assert dict(header.tlvs)[0x03] == data[position + 3 : position + 7]
        for at in {*range(16, 28), *range(position + 3, position + 7), len(data) - 1}:
            with pytest.raises(ProxyError, match="CRC32C does not match"):
                parse(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_what_is_shown() -> None:
    """A message shows 40 of the bytes that came, and says that there were more; it shows all where
    there were no more."""
    with pytest.raises(ProxyError) as caught:
        parse(b"x" * 50_000)
    assert str(caught.value).endswith(f"got {b'x' * 40!r}...")
    with pytest.raises(ProxyError) as caught:
        parse(b"x" * 40)
    assert str(caught.value).endswith(f"got {b'x' * 40!r}")


def test_never_waits_for_more_than_the_limit() -> None:
    """None is never the answer to MAX_HEADER_BYTES."""
    for beginning in (
        b"",
        b"PROXY UNKNOWN ",
        b"PROXY TCP4 ",
        SIGNATURE,
        SIGNATURE + b"\x21\x11\x0f\xf0",
        SIGNATURE + b"\x20\x00\x0f\xf0",
    ):
        assert outcome(beginning.ljust(MAX_HEADER_BYTES, b"1")) is not None


ports = st.integers(0, 65535)
pieces = st.sampled_from(
    [
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b" ",
        b"1.2.3.4",
        b"::1",
        b"0",
        b"65535",
        b"\r",
        b"\n",
        b"\r\n",
        SIGNATURE,
        b"\x21\x11",
        b"\0",
    ]
)
tlvs = st.lists(
    st.tuples(
        st.sampled_from([0x00, 0x06, 0x26, 0x31, 0xE0, 0xFF]) | st.just(0x04),
        st.binary(max_size=20),
    ),
    max_size=6,
)
whole = st.sampled_from(
    [data for data, _ in VALID.values() if len(data) < 400] + [summed((0x01, b"h2"))]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid header with up to three changes: bytes replaced, taken out, put in."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 3)))
        data = data[:start] + draw(st.binary(max_size=3) | pieces) + data[end:]
    return data


anything = st.one_of(
    st.binary(max_size=200),
    st.lists(pieces | st.binary(max_size=3), max_size=30).map(b"".join),
    st.builds(
        v2,
        st.sampled_from([0, TCP4, TCP6, UNIX]),
        st.binary(max_size=300),
        st.sampled_from([0x20, 0x21]),
    ),
    st.builds(lambda rest: v2(TCP4, BLOCK4 + rest), st.binary(max_size=40)),
    mutated(),
)


@examples(
    settings.default.max_examples
)  # a profile of more, --hypothesis-profile, makes this the fuzzer
@given(anything)
def test_fuzz(data: bytes) -> None:
    """Whatever the bytes: a header, None or ProxyError; once a header, that header; once an error,
    an error."""
    check_each_prefix(data)


@examples(200)
@given(mutated())
def test_mutations_keep_the_types(data: bytes) -> None:
    """A valid header with a few bytes changed is refused, waits, or is a header of sound types that
    took no more than there is."""
    found = outcome(data)
    if isinstance(found, tuple):
        header, size = found
        assert 0 < size <= min(len(data), MAX_HEADER_BYTES)
        assert header.version in (1, 2)
        for address in (header.source, header.destination):
            if isinstance(address, tuple):
                socket.inet_pton(
                    socket.AF_INET if len(address) == 2 else socket.AF_INET6, address[0]
                )
                assert 0 <= address[1] <= 65535
        assert hash(header) == hash(parse(data)[0])


@examples(100)
@given(st.ip_addresses(v=4), st.ip_addresses(v=4), ports, ports, tlvs)
def test_ipv4_there_and_back(source, destination, source_port, destination_port, tlvs) -> None:
    """Addresses, ports and fields of IPv4 come out of either version as they went in."""
    expected = ((str(source), source_port), (str(destination), destination_port))
    header, _ = parse(
        f"PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n".encode()
    )
    assert (header.source, header.destination) == expected
    block = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
    header, _ = parse(v2(TCP4, block + b"".join(tlv(*each) for each in tlvs)))
    assert (header.source, header.destination) == expected
    assert header.tlvs == tuple(each for each in tlvs if each[0] != 0x04)


@examples(100)
@given(st.ip_addresses(v=6), st.ip_addresses(v=6), ports, ports, st.booleans())
def test_ipv6_there_and_back(source, destination, source_port, destination_port, full) -> None:
    """Addresses and ports of IPv6 come out of either version as the system writes them, however
    they were written."""
    hosts = [socket.inet_ntop(socket.AF_INET6, each.packed) for each in (source, destination)]
    expected = ((hosts[0], source_port, 0, 0), (hosts[1], destination_port, 0, 0))
    written = [
        each.packed.hex(":", 2) if full else socket.inet_ntop(socket.AF_INET6, each.packed).upper()
        for each in (source, destination)
    ]
    header, _ = parse(
        f"PROXY TCP6 {written[0]} {written[1]} {source_port} {destination_port}\r\n".encode()
    )
    assert (header.source, header.destination) == expected
    header, _ = parse(
        v2(
            TCP6,
            source.packed + destination.packed + struct.pack("!HH", source_port, destination_port),
        )
    )
    assert (header.source, header.destination) == expected


@examples(100)
@given(
    st.binary(max_size=108).map(lambda path: path.replace(b"\0", b"/")),
    st.text("aé漢\0", max_size=40),
    st.binary(max_size=128),
    st.integers(0, 2**32 - 1),
)
def test_unix_and_known_fields_there_and_back(path, authority, unique_id, verify) -> None:
    """Paths and the fields of known types come out as they went in."""
    known = {
        0x02: authority.encode(),
        0x05: unique_id,
        0x20: b"\x01" + struct.pack("!I", verify) + tlv(0x22, authority.encode()),
    }
    header, _ = parse(
        v2(UNIX, unix_block(path, b"") + b"".join(tlv(*each) for each in known.items()))
    )
    assert (header.source, header.destination) == (os.fsdecode(path), "")
    assert dict(header.tlvs) == known
    assert (header.authority, header.unique_id) == (authority, unique_id)
    assert (header.ssl.client, header.ssl.verify, header.ssl.cn) == (
        ProxySSLFlags.SSL,
        verify,
        authority,
    )


@examples(100)
@given(st.binary(max_size=300))
def test_checksum_beside_the_slow_one(data: bytes) -> None:
    """The table gives what a bit at a time gives."""
    assert proxy._crc32c(data) == crc32c(data)
