"""A table of strings, in print and in a notebook: names on the left, numbers on the right."""

from __future__ import annotations

import html
from collections.abc import Sequence

Cells = Sequence[Sequence[str]]  # the first row is the head, the first column holds names


def as_lines(cells: Cells) -> list[str]:
    """The table in a typewriter's letters, a line for each row."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]) for name, *numbers in cells]


def as_html(cells: Cells) -> str:
    """The same as a `<table>`; what looks like HTML in a cell is shown, never obeyed."""
    rows = [_html_row("th", cells[0]), *(_html_row("td", row) for row in cells[1:])]
    return f"<table>{''.join(rows)}</table>"


def _html_row(tag: str, row: Sequence[str]) -> str:
    sides = ["left"] + ["right"] * (len(row) - 1)
    inner = (f'<{tag} style="text-align:{side}">{html.escape(c)}</{tag}>' for side, c in zip(sides, row, strict=True))
    return f"<tr>{''.join(inner)}</tr>"
