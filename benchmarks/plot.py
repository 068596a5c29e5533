"""The same figures as bars, one panel per load, for a page of documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .loads import LOADS
from .runner import Cell
from .table import number

OURS, THEIRS, LIMIT = "#1b7f5c", "#9aa5b1", "#d9a441"
COLUMNS = 3


def _colour(peer: str) -> str:
    if peer.startswith("headrace"):
        return OURS
    return LIMIT if peer == "C" else THEIRS


def save_svg(cells: Sequence[Cell], path: Path, caption: str) -> None:
    """Draw every load that has a figure; *caption* says what was measured."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "headrace"  # the same figures, the same file
    from matplotlib import pyplot

    loads = list(dict.fromkeys(cell.load for cell in cells if cell.samples))
    if not loads:
        return
    columns = min(COLUMNS, len(loads))
    rows = -(-len(loads) // columns)
    tallest = max(sum(c.load == load and bool(c.samples) for c in cells) for load in loads)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(4.6 * columns, rows * (0.9 + 0.28 * tallest)),
        squeeze=False,
    )
    for axis in axes.flat[len(loads) :]:
        axis.axis("off")
    for axis, load in zip(axes.flat, loads, strict=False):
        shown = [cell for cell in cells if cell.load == load and cell.samples]
        values = [cell.median("figure") or 0.0 for cell in shown]
        peers = [cell.peer for cell in shown]
        bars = axis.barh(peers, values, color=[_colour(peer) for peer in peers])
        axis.bar_label(bars, [number(value) for value in values], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.16)
        axis.set_title(f"{load}: {LOADS[load].unit}", fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Server CPU (memory loads: resident bytes), shorter is better", fontsize=11)
    figure.text(0.01, 0.005, caption, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 0.99))
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
