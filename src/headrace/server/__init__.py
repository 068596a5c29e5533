"""headrace.serve(): a server that can be put into production."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a checker that saw __getattr__ would take every name for one that exists
    from headrace.server import metrics as metrics
else:

    def __getattr__(name: str) -> Any:
        # There after ``import headrace`` alone, but loaded for those who serve figures only.
        if name == "metrics":
            return importlib.import_module("headrace.server.metrics")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
