"""Each way in which another program is told to take headrace's loop, with the program itself:
docs/loop.md has them. `make test-world` runs these."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace

pytestmark = pytest.mark.world
TIMEOUT_S = 40
# Answers with what serves it: the class of the loop and that of the connection's transport.
ASGI = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    kind = type(asyncio.get_running_loop())
    body = f"{kind.__module__}.{kind.__name__}".encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
AIOHTTP = """
import asyncio
from aiohttp import web

async def handle(request):
    kind = type(asyncio.get_running_loop())
    transport = type(request.transport).__name__
    return web.Response(text=f"{kind.__module__}.{kind.__name__} {transport}")

app = web.Application()
app.router.add_get("/", handle)
"""
OURS = "headrace.EventLoop"


def needs(*packages: str) -> None:
    """Skip the test unless *packages* are installed; print which versions are tried."""
    for package in packages:
        try:
            print(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed")


def environment() -> dict[str, str]:
    """Return an environment in which *this* headrace is found from any directory."""
    root = str(Path(headrace.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "HEADRACE_NO_EXTENSIONS": "1"}


def unused_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def running(*command: str, cwd: Path) -> Iterator[None]:
    """Run python with *command* meanwhile, which has to end well after SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
        process.terminate()
        out, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode in (0, -15), out
    finally:
        if process.poll() is None:
            process.kill()
            print(process.communicate()[0])


def ask(port: int) -> str:
    """Return what the server at *port* says, as soon as it does."""
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_S) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def python(*arguments: str, cwd: Path) -> str:
    """Return what python with *arguments* says."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


def test_uvicorn_command(tmp_path):
    """uvicorn --loop headrace:new_event_loop"""
    needs("uvicorn")
    (tmp_path / "page.py").write_text(ASGI)
    port = unused_port()
    options = ("page:app", "--loop", "headrace:new_event_loop", "--port", str(port))
    with running("-m", "uvicorn", *options, cwd=tmp_path):
        assert ask(port) == OURS


def test_uvicorn_config(tmp_path):
    """uvicorn.run(app, loop="headrace:new_event_loop")"""
    needs("uvicorn")
    port = unused_port()
    (tmp_path / "page.py").write_text(
        ASGI + f"import uvicorn\nuvicorn.run(app, loop='headrace:new_event_loop', port={port})\n"
    )
    with running("page.py", cwd=tmp_path):
        assert ask(port) == OURS


@pytest.mark.parametrize(
    ("worker", "source", "packages"),
    [
        ("UvicornWorker", ASGI, ("uvicorn", "uvicorn-worker")),
        ("AiohttpWorker", AIOHTTP, ("aiohttp",)),
        ("ASGIWorker", ASGI, ()),
    ],
)
def test_gunicorn(tmp_path, worker, source, packages):
    """gunicorn -k headrace.gunicorn.…"""
    needs("gunicorn", *packages)
    (tmp_path / "page.py").write_text(source)
    port = unused_port()
    options = ("-k", f"headrace.gunicorn.{worker}", "-b", f"127.0.0.1:{port}", "page:app")
    with running("-m", "gunicorn", *options, cwd=tmp_path):
        assert ask(port).split()[0] == OURS


def test_hypercorn(tmp_path):
    """headrace.run(serve(app, config)): hypercorn's own choice of loops is fixed."""
    needs("hypercorn")
    port = unused_port()
    (tmp_path / "page.py").write_text(
        ASGI + "import headrace\n"
        "from hypercorn.asyncio import serve\n"
        "from hypercorn.config import Config\n"
        "config = Config()\n"
        f"config.bind = ['127.0.0.1:{port}']\n"
        "headrace.run(serve(app, config))\n"
    )
    with running("page.py", cwd=tmp_path):
        assert ask(port) == OURS


def test_aiohttp_run_app(tmp_path):
    """web.run_app(app, loop=headrace.new_event_loop())"""
    needs("aiohttp")
    port = unused_port()
    (tmp_path / "page.py").write_text(
        AIOHTTP + "import headrace\n"
        f"web.run_app(app, host='127.0.0.1', port={port}, loop=headrace.new_event_loop())\n"
    )
    with running("page.py", cwd=tmp_path):
        assert ask(port).split()[0] == OURS


def test_anyio(tmp_path):
    """anyio.run(main, backend_options={"loop_factory": headrace.new_event_loop})"""
    needs("anyio")
    (tmp_path / "program.py").write_text(
        "import asyncio, anyio, headrace\n"
        "async def main():\n"
        "    print(type(asyncio.get_running_loop()).__module__)\n"
        "anyio.run(main, backend_options={'loop_factory': headrace.new_event_loop})\n"
    )
    assert python("program.py", cwd=tmp_path) == "headrace\n"


TEST = """
import asyncio, pytest

@pytest.mark.{mark}
async def test_loop():
    assert type(asyncio.get_running_loop()).__module__ == "headrace"
"""
CONFTESTS = {
    "anyio": (
        "import headrace, pytest\n"
        "@pytest.fixture\n"
        "def anyio_backend():\n"
        "    return 'asyncio', {'loop_factory': headrace.new_event_loop}\n"
    ),
    "asyncio": (
        "import headrace\n"
        "def pytest_asyncio_loop_factories(config, item):\n"
        "    return {'headrace': headrace.new_event_loop}\n"
    ),
}


@pytest.mark.parametrize(("mark", "package"), [("anyio", "anyio"), ("asyncio", "pytest-asyncio")])
def test_pytest_plugins(tmp_path, mark, package):
    """The fixture anyio_backend, and pytest-asyncio's hook for factories of loops."""
    needs(package)
    (tmp_path / "conftest.py").write_text(CONFTESTS[mark])
    (tmp_path / "test_it.py").write_text(TEST.format(mark=mark))
    assert "1 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)


def test_ipython(tmp_path):
    """headrace run -m IPython: its loop is the one that asyncio makes."""
    needs("ipython")
    code = "import asyncio; await asyncio.sleep(0); print(type(asyncio.get_running_loop()))"
    said = python("-m", "headrace", "run", "-m", "IPython", "-c", code, cwd=tmp_path)
    assert "'headrace.EventLoop'" in said


def test_a_worker_whose_package_is_missing_says_so(monkeypatch):
    """Without the package, the worker class says what to install."""
    import headrace.gunicorn

    for name in ("aiohttp.worker", "gunicorn.workers.gasgi", "uvicorn_worker", "uvicorn.workers"):
        monkeypatch.setitem(sys.modules, name, None)
    for worker in ("AiohttpWorker", "ASGIWorker", "UvicornWorker"):
        with pytest.raises(ImportError, match=f"{worker} needs another package .*: pip install"):
            getattr(headrace.gunicorn, worker)
    with pytest.raises(AttributeError, match="no attribute 'Worker'"):
        headrace.gunicorn.Worker  # noqa: B018
