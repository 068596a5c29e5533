"""What a run needs before it starts: two C programs, a Rust one for who has it, and a certificate.

They are made on first use and kept in ``.build`` beside this file; a program is built
again when any of its sources is newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"


class BuildError(Exception):
    """A program could not be built; the message is for the person at the terminal."""


@dataclass(frozen=True)
class Programs:
    """The paths of the built programs; *tls* says whether the load speaks TLS."""

    load: Path
    echo_server: Path
    tls: bool


def _compile(target: Path, source: str, *flags: str) -> bool:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BuildError(f"no C compiler: {compiler!r} is not on PATH (set CC to name another)")
    part = target.with_suffix(".part")
    command = [compiler, "-O2", "-Wall", str(HERE / source), "-o", str(part), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        target.with_suffix(".log").write_text(done.stderr)
        return False
    part.replace(target)  # a second run at the same time never sees half a program
    return True


def _is_fresh(target: Path, *sources: str) -> bool:
    if not target.exists():
        return False
    built = target.stat().st_mtime
    return all((HERE / source).stat().st_mtime <= built for source in sources)


def programs() -> Programs:
    """Build missing or stale programs; without OpenSSL's headers the load has no TLS."""
    BUILD.mkdir(exist_ok=True)
    sources = ("load.c", "wire.h", "latency.h")
    with_tls, without = BUILD / "load", BUILD / "load-plain"
    server = BUILD / "echo_server"
    load = with_tls
    if not _is_fresh(with_tls, *sources) and not _compile(with_tls, "load.c", "-lssl", "-lcrypto"):
        load = without
        if not _is_fresh(without, *sources) and not _compile(without, "load.c", "-DNO_TLS"):
            raise BuildError(f"load.c does not build; see {without.with_suffix('.log')}")
    if not _is_fresh(server, "echo_server.c") and not _compile(server, "echo_server.c"):
        raise BuildError(f"echo_server.c does not build; see {server.with_suffix('.log')}")
    return Programs(load, server, tls=load is with_tls)


# Where Debian's packages of Rust's libraries are.
_SYSTEM_CRATES = Path("/usr/share/cargo/registry")


def tokio_server() -> Path:
    """The server on tokio, built by cargo: from Debian's packages where they are, and not from the
    network."""
    target = BUILD / "tokio" / "release" / "tokio_server"
    source = HERE / "tokio_server"
    if _is_fresh(target, "tokio_server/main.rs", "tokio_server/Cargo.toml"):
        return target
    if shutil.which("cargo") is None:
        raise BuildError("cargo (see tokio_server/Cargo.toml)")
    command = ["cargo", "build", "--quiet", "--release", "--target-dir", str(BUILD / "tokio")]
    if _SYSTEM_CRATES.exists():
        command += ["--offline"]
        command += ["--config", 'source.crates-io.replace-with="system"']
        command += ["--config", f'source.system.directory="{_SYSTEM_CRATES}"']
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        log = BUILD / "tokio.log"
        log.write_text(done.stderr)
        raise BuildError(f"tokio_server does not build; see {log}")
    os.utime(target)  # cargo keeps an old time where nothing had to be done
    return target


def certificate() -> Path:
    """A PEM file with an RSA 2048 key and its chain, made afresh for every run.

    RSA because that is what most servers still hold; trustme would make an elliptic
    curve key, whose handshake costs a server far less.
    """
    try:
        import trustme
    except ImportError as error:
        raise BuildError("the TLS loads need trustme: pip install trustme") from error
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"certificate-{os.getpid()}.pem"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(issued.private_key_and_cert_chain_pem.bytes())
    return path
