"""Worker classes for gunicorn on headrace's event loop, each beside the one it is derived from:

    gunicorn -k headrace.gunicorn.UvicornWorker app:app    uvicorn-worker's, or uvicorn's own
    gunicorn -k headrace.gunicorn.AiohttpWorker app:app    aiohttp's
    gunicorn -k headrace.gunicorn.ASGIWorker app:app       gunicorn's

A class is made when it is asked for: only then the packages that it is of have to be there.
"""

from __future__ import annotations

from typing import Any

from headrace import new_event_loop
from headrace._loop.default import make_default


def _uvicorn_worker() -> type:
    try:
        from uvicorn_worker import UvicornWorker as Base
    except ImportError:
        from uvicorn.workers import UvicornWorker as Base

    class UvicornWorker(Base):  # type: ignore[misc]
        """uvicorn's worker on headrace's loop."""

        CONFIG_KWARGS = {**Base.CONFIG_KWARGS, "loop": "headrace:new_event_loop"}  # noqa: RUF012

    return UvicornWorker


def _aiohttp_worker() -> type:
    from aiohttp.worker import GunicornWebWorker

    class AiohttpWorker(GunicornWebWorker):  # type: ignore[misc]
        """aiohttp's worker on headrace's loop."""

        def init_process(self) -> None:
            """Be a worker, in its own process."""
            make_default(new_event_loop)
            super().init_process()

    return AiohttpWorker


def _asgi_worker() -> type:
    from gunicorn.workers.gasgi import ASGIWorker as Base

    class ASGIWorker(Base):  # type: ignore[misc]
        """gunicorn's ASGI worker on headrace's loop."""

        def init_process(self) -> None:
            """Be a worker, in its own process."""
            make_default(new_event_loop)
            self.cfg.set("asgi_loop", "asyncio")  # else uvloop, where it is installed
            super().init_process()

    return ASGIWorker


# What makes each, and the packages that it needs.
_WORKERS = {
    "UvicornWorker": (_uvicorn_worker, "gunicorn uvicorn-worker"),
    "AiohttpWorker": (_aiohttp_worker, "gunicorn aiohttp"),
    "ASGIWorker": (_asgi_worker, "'gunicorn>=25'"),
}


def __getattr__(name: str) -> Any:
    if name not in _WORKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    make, packages = _WORKERS[name]
    try:
        worker = make()
    except ImportError as error:
        raise ImportError(
            f"headrace.gunicorn.{name} needs another package ({error}): pip install {packages}"
        ) from error
    worker.__qualname__ = name
    globals()[name] = worker
    return worker
