"""The terminal's view of a run: one table per load, then what is missing and why."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .loads import LOADS
from .peers import PEERS
from .runner import Cell

SHAKY = 0.25  # rounds further apart than this are marked; a judgement, not a law


def number(value: float | None) -> str:
    """Three digits that matter, with thousands set apart."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def base_figure(cells: Sequence[Cell], load: str, base: str) -> float | None:
    """Find the median of the base peer under *load*, if it has one."""
    for cell in cells:
        if cell.load == load and cell.peer == base:
            return cell.median("figure")
    return None


def _row(cell: Cell, base: float | None, best: float | None) -> list[str]:
    figure = cell.median("figure")
    assert figure is not None
    shown = number(figure)
    if cell.spread() > SHAKY:
        shown += " ~"
    if figure == best:
        shown = f"[bold green]{shown}[/]"
    ratio = f"{figure / base:.2f}" if base else "-"
    rest = [number(cell.median(name)) for name in ("p50_us", "p99_us", "rate")]
    spread = f"{cell.spread():.0%}" if len(cell.samples) > 1 else "-"
    return [cell.peer, shown, ratio, *rest, spread]


def load_table(cells: Sequence[Cell], load: str, base: str) -> Table | None:
    """Make the table of one load; None when nobody could serve it."""
    measured = [cell for cell in cells if cell.load == load and cell.samples]
    if not measured:
        return None
    facts = LOADS[load]
    table = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("peer", no_wrap=True)
    unit = facts.unit.partition(" / ")[0]
    headings = (unit, f"x {base}", "p50 us", "p99 us", "rate / s", "spread")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    # The others are limits, not contenders.
    figures = [cell.median("figure") for cell in measured if PEERS[cell.peer].is_python]
    best = min((figure for figure in figures if figure is not None), default=None)
    for cell in measured:
        table.add_row(*_row(cell, base_figure(cells, load, base), best))
    return table


def print_report(console: Console, cells: Sequence[Cell], base: str) -> None:
    """Print all tables, the versions measured, and every gap with its reason."""
    for load in dict.fromkeys(cell.load for cell in cells):
        table = load_table(cells, load, base)
        if table is not None:
            facts = LOADS[load]
            console.print(f"[bold]{load}[/]: {facts.about}", highlight=False)
            console.print(f"[dim]the server's {facts.unit}[/]", highlight=False, end="")
            console.print(table)
    versions = {cell.peer: cell.versions for cell in cells if cell.versions}
    for peer, text in versions.items():
        console.print(f"[dim]{peer}: {text}[/]", highlight=False)
    if any(cell.spread() > SHAKY for cell in cells):
        console.print(f"~ rounds lie more than {SHAKY:.0%} apart: measure again, or longer.")
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for reason in [cell.skipped] if cell.skipped else list(dict.fromkeys(cell.problems)):
            reasons.setdefault((cell.peer, reason), []).append(cell.load)
    for (peer, reason), loads in reasons.items():
        console.print(f"{peer} ({', '.join(loads)}): {reason}", highlight=False, markup=False)
