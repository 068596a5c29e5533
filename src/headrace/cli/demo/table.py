"""The table of the demo: its progress while it is measured, and how it is drawn."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.cli.demo.measure import LOADS, STREAMS, Cell, measure

# Long enough for a figure that repeats within a few per cent on a quiet machine; the whole demo
# stays under a minute. Measured.
ROUNDS, SECONDS = 3, 0.4
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.15


def show_table(console: Console, loops: list[str], quick: bool) -> None:
    """Measure on *loops*, in one short round if *quick*, and draw the table."""
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    runs = rounds * len(LOADS) * len(loops) * len(STREAMS)
    console.print(
        "\n[bold]What a message costs a server[/]: the same handler, asyncio's streams beside "
        "headrace's, 10 connections"
    )
    if not console.is_terminal:
        console.print(f"measuring: {runs} runs of {seconds} s …")
    columns = (
        TextColumn("measuring {task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=runs)
        begun = 0

        def advance(what: str) -> None:
            nonlocal begun
            progress.update(task, description=what, completed=begun)
            begun += 1

        cells = measure(loops, rounds, seconds, advance)
    _draw(console, cells, quick)


def _draw(console: Console, cells: list[Cell], quick: bool) -> None:
    table = Table(title="microseconds of the server's CPU time per message", title_justify="left")
    table.add_column("load", no_wrap=True)
    table.add_column("loop")
    table.add_column("asyncio streams", justify="right", no_wrap=True)
    table.add_column("headrace", justify="right", style="bold green", no_wrap=True)
    table.add_column("ratio", justify="right")
    table.add_column("faster", justify="right", style="bold")
    previous = None
    for stock, ours in zip(cells[::2], cells[1::2], strict=True):
        if previous not in (None, stock.load):
            table.add_section()
        table.add_row(
            stock.load.about if stock.load != previous else "",
            stock.loop,
            _with_spread(stock.runs_us, stock.median_us),
            _with_spread(ours.runs_us, ours.median_us),
            f"{ours.median_us / stock.median_us:.2f}",
            f"{stock.median_us / ours.median_us:.1f} x",
        )
        previous = stock.load
    console.print(table)
    if quick:
        console.print(
            "One short run each: rough figures. Without --quick the demo takes the median of three "
            "longer ones."
        )
    else:
        console.print(
            f"Medians of {ROUNDS} interleaved runs of {SECONDS} s, ± half the distance between the "
            "lowest and the highest. The CPU time "
            "is the server process's own, system calls included; the load comes from another "
            "process. Other work on the machine "
            "moves the figures, and it moves both columns: trust the ratios within one table, not "
            "figures from two."
        )
    console.print(
        "32 x 64 B: 32 messages of 64 bytes in flight on each connection. An echo is mostly system "
        "calls, which both pay alike; lines "
        "and frames show the streams themselves."
    )


def _with_spread(runs_us: list[float], median_us: float) -> str:
    if len(runs_us) < 2:
        return f"{median_us:.1f}"
    return f"{median_us:.1f} ± {(max(runs_us) - min(runs_us)) / 2:.1f}"
