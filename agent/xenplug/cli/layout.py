"""Text for a terminal: columns that stay aligned whatever stands in them, wrapped to a width, coloured if wanted.

look.py and tree.py make lines of these; nothing here knows what a device is. A width of None wraps and cuts nothing,
which is how output that is no terminal gets it.
"""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

CODES = {"good": "32", "bad": "1;31", "waiting": "33", "faint": "2", "head": "1"}
"""By meaning: the SGR code (ECMA-48)."""
NARROWEST = 24
"""Cells that a wrapped column needs; where it has fewer, its text stands below the row."""
BELOW = 4
"""Cells by which it is set in there."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """What is written on: its width in cells (None: endless), and whether in colour."""

    width: int | None = None
    colour: bool = False

    def paint(self, meaning: str | None, text: str) -> str:
        """The text in the colour of its meaning."""
        if not self.colour or meaning is None:
            return text
        return f"\x1b[{CODES[meaning]}m{text}\x1b[0m"


def terminal_for(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Terminal:
    """Terminals get their width and colour; NO_COLOR (no-color.org) and TERM=dumb take the colour away."""
    if not stream.isatty():
        return Terminal()
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM", "dumb") == "dumb"
    import shutil  # slow to import, and of no use to --json

    return Terminal(shutil.get_terminal_size().columns, not plain)


def encodable(text: str, stream: TextIO = sys.stdout) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def cells(text: str) -> int:
    """How many cells of a terminal the text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int) -> str:
    """Filled with blanks to so many cells."""
    return text + " " * (width - cells(text))


def clip(text: str, width: int) -> str:
    """Cut to so many cells, with `…` where something is missing."""
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells(character)
        if used > width - 1:
            break
        kept += character
    return f"{kept}…" if width > 0 else ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A text of a table and its meaning (a key of CODES)."""

    text: str
    meaning: str | None = None


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value if value.text else Cell("-", value.meaning)
    return Cell("-" if value in (None, "") else str(value))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], terminal: Terminal = Terminal()) -> list[str]:
    """Aligned columns, the last one wrapped to the paper's width; an absent value is a dash."""
    lines = [[Cell(word, "head") for word in header], *([_cell(value) for value in row] for row in rows)]
    widths = [max(cells(line[i].text) for line in lines) for i in range(len(header))]
    written: list[str] = []
    for line in lines:
        written += _row(line, widths, terminal)
    return written


def _row(line: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> list[str]:
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    first = "".join(
        terminal.paint(c.meaning, pad(c.text, w)) + "  " for c, w in zip(line[:-1], widths[:-1], strict=True)
    )
    last, room = line[-1], None if terminal.width is None else terminal.width - indent
    if room is not None and room < NARROWEST and cells(last.text) > room:
        indent, lines = BELOW, [first]
        rest = wrap(last.text, max((terminal.width or 0) - BELOW, NARROWEST))
    else:
        begin, *rest = wrap(last.text, room)
        lines = [first + terminal.paint(last.meaning, begin)]
    lines += [" " * indent + terminal.paint(last.meaning, text) for text in rest]
    return [text.rstrip() for text in lines]


def wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width` characters; at least one line."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
