"""Where to connect: the words of the command line."""

from __future__ import annotations

from urllib.parse import urlsplit

# What to type for a URL of these schemes, where it names no port: the port, and the option.
SCHEMES = {
    "http": ("80", ""),
    "ws": ("80", ""),
    "https": ("443", "--tls "),
    "wss": ("443", "--tls "),
}


def target_of(target: str, port: str | None) -> tuple[str, str]:
    """Return (host, port), or ("", path) of a Unix socket. Raises: ValueError where it is
    neither."""
    if target.startswith("unix:"):
        if port is not None or target == "unix:":
            raise ValueError("unix:PATH takes a path, and no port")
        return "", target.removeprefix("unix:")
    if "://" in target:
        raise ValueError(f"{target}: a URL is no target{_instead_of(target, port)}")
    host = target
    if port is None:
        host, _, port = target.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(
                f"{target}: an IPv6 address with its port is written [ADDRESS]:PORT, or ADDRESS "
                "PORT"
            )
    if not host or not port or "/" in host + port:
        raise ValueError(f"{target}: where to? Give HOST PORT, HOST:PORT or unix:PATH")
    if port.isdecimal() and not 0 < int(port) < 65536:
        raise ValueError(f"port {port}: ports are 1 to 65535")
    return host, port


def _instead_of(url: str, port: str | None) -> str:
    """Return what to type instead of *url* and *port*, as the end of a sentence."""
    try:
        parts = urlsplit(url)
        given = port or parts.port
    except ValueError:  # of a port that is none, or an address
        parts, given = urlsplit(""), None
    if not parts.hostname:
        return ": give HOST PORT, HOST:PORT or unix:PATH"
    usual, option = SCHEMES.get(parts.scheme, ("PORT", ""))
    return f": type headrace connect {option}{parts.hostname} {given or usual}"
