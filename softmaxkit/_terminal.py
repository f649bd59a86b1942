"""What the commands print with: lines, a progress bar, and tables in which nothing is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

__all__ = ["heading", "new_console", "new_table", "print_table", "progress", "say"]

# A column of sentences is broken between words, to this width if need be.
_PROSE_WIDTH = 24
_GAP = 2  # between columns


def new_console(stderr: bool = False) -> Console:
    """Return a console that leaves out every colour and bold letter where NO_COLOR is set."""
    # rich's own answer to NO_COLOR keeps bold and dim.
    return Console(stderr=stderr, color_system=None if os.environ.get("NO_COLOR") else "auto")


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print a line, broken between words on a terminal, and whole in a file or pipe."""
    whole = not console.is_terminal
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=whole)


def progress(*more: TextColumn) -> Progress:
    """Return bars for stderr, with more columns after the numbers; silent where no terminal is."""
    console = new_console(stderr=True)
    return Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=console,
        disable=not console.is_interactive,
        transient=True,
    )


# --- tables ---------------------------------------------------------------------------------------
def heading(name: str) -> str:
    """Break a long name in two lines where it has two parts, to head a narrow column."""
    for mark in (", ", ".", "_"):
        before, found, after = name.rpartition(mark)
        if found and len(name) > 10:
            return f"{before}{mark.rstrip()}\n{after}"
    return name


def new_table(title: str, names: Sequence[str], prose: Sequence[str] = (), left: int = 1) -> Table:
    """Return a table without rows, for `print_table`.

    The first `left` columns and those of `prose`, which may be broken between words, are set to the
    left, the others, of numbers, to the right.
    """
    table = _bare_table(title)
    for i, name in enumerate(names):
        is_left = i < left or name in prose
        justify: JustifyMethod = "left" if is_left else "right"
        table.add_column(name, justify=justify, no_wrap=name not in prose)
    return table


def _bare_table(title: str | None = None) -> Table:
    return Table(
        title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True
    )


def print_table(console: Console, table: Table, caption: str = "") -> None:
    """Print a table in as many parts as its width needs, each with the first column.

    Where even that column and one more are too wide, names are broken, and still not cut.
    """
    if table.title:
        console.print(Text(str(table.title), "bold"))
    cells = [[_text(cell) for cell in column.cells] for column in table.columns]
    first, *others = range(len(table.columns))
    for i, places in enumerate(_parts(table.columns, cells, first, others, console.width)):
        if i:
            console.print()
        part = _bare_table()
        needed = _width(table.columns, cells, places, prose=0)
        for place in places:
            column = table.columns[place]
            part.add_column(
                _text(column.header),
                justify=column.justify,
                no_wrap=column.no_wrap and needed <= console.width,
                overflow="fold",
            )
        for at, row in enumerate(table.rows):
            part.add_row(*(cells[place][at] for place in places), style=row.style)
        console.print(part)
    if caption:
        console.print(Text(caption, "italic"))
    console.print()


def _parts(
    columns: Sequence[Column], cells: list[list[Text]], first: int, others: list[int], width: int
) -> Iterator[list[int]]:
    """Yield the places of the columns of each part."""
    part = [first]
    for place in others:
        if len(part) > 1 and _width(columns, cells, [*part, place]) > width:
            yield part
            part = [first]
        part.append(place)
    yield part


def _width(
    columns: Sequence[Column], cells: list[list[Text]], places: list[int], prose: int = _PROSE_WIDTH
) -> int:
    """Return the width of a part in which nothing is cut, and sentences have `prose` columns."""
    widths = []
    for place in places:
        texts = [_text(columns[place].header).plain, *(cell.plain for cell in cells[place])]
        longest = max(cell_len(line) for text in texts for line in text.split("\n"))
        if not columns[place].no_wrap:
            word = max(cell_len(word) for text in texts for word in [*text.split(), ""])
            longest = max(word, min(longest, prose))
        widths.append(longest)
    return sum(widths) + _GAP * (len(places) - 1)


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
