"""Tables for a terminal, a narrow one, and a pipe: nothing in them is ever cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Column, Table

from orchestrator.cli.output import out

_FOLDED: Final = 20  # a path or URI in a column that folds is broken rather than making the table wider
_GAP: Final = 2  # between columns


def plain_table(*, title: str | None = None, header_style: str = "dim", show_header: bool = True) -> Table:
    """A table without lines."""
    return Table(
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style=header_style,
        show_header=show_header,
    )


def room(console: Console = out) -> int | None:
    """Columns that there are; None in a pipe, where a line may be as long as it is.

    $COLUMNS counts in a pipe as well.
    """
    return console.width if console.is_terminal or os.environ.get("COLUMNS", "").isdigit() else None


def print_table(table: Table, console: Console = out) -> None:
    """Print it as wide as there is room for. Cells wrap between words.

    Where not even the longest words fit side by side, lines are longer than the room.
    """
    wanted = [_measured(console, column) for column in table.columns]
    gaps = _GAP * max(0, len(wanted) - 1)
    space = room(console)
    widths = [most for _, most in wanted] if space is None else _shared(wanted, space - gaps)
    for column, width in zip(table.columns, widths, strict=True):
        column.width, column.overflow, column.no_wrap = width, "fold", False
    table.padding = (0, _GAP, 0, 0)
    table.width = sum(widths) + gaps  # however wide rich believes the console to be
    options = console.options.update(width=table.width)
    lines = console.render_lines(table, options, pad=False)
    console.print(Segments([part for line in lines for part in _ended(line)]), crop=False, end="")


def _ended(line: Sequence[Segment]) -> Iterator[Segment]:
    """A line without the blanks at its end, which a narrow terminal would put on lines of their own."""
    filled = len("".join(part.text for part in line).rstrip())
    for part in line:
        yield Segment(part.text[: max(0, filled)], part.style)
        filled -= len(part.text)
    yield Segment.line()


def _measured(console: Console, column: Column) -> tuple[int, int]:
    """Width of the longest word, and of the longest cell; both the same where the column does not wrap."""
    unlimited = console.options.update(max_width=10_000)
    cells = [console.measure(cell, options=unlimited) for cell in (column.header, *column.cells)]
    most = max((cell.maximum for cell in cells), default=0)
    if column.no_wrap:
        return most, most
    least = max((cell.minimum for cell in cells), default=0)
    return (min(least, _FOLDED) if column.overflow == "fold" else least), most


def _shared(wanted: Sequence[tuple[int, int]], space: int) -> list[int]:
    """A width for each column: its least, and of what is left an equal part up to its most."""
    widths = [least for least, _ in wanted]
    left = space - sum(widths)
    growing = [i for i, (least, most) in enumerate(wanted) if least < most]
    while left > 0 and growing:
        part = max(1, left // len(growing))
        for i in growing:
            more = min(part, wanted[i][1] - widths[i], left)
            widths[i] += more
            left -= more
        growing = [i for i in growing if widths[i] < wanted[i][1]]
    return widths
