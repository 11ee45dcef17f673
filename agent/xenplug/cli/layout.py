"""Text for a terminal: aligned columns, wrapped to a width, in colour if wanted.

status_text.py and tree.py use it; nothing here knows devices. With a width of None nothing is wrapped or cut: for
output that is not a terminal.
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
"""Cells that a wrapped column needs; if there are fewer, its text goes below the row."""
BELOW = 4
"""Cells of indentation of that text."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """The output: its width in cells (None: unlimited), and whether it has colour."""

    width: int | None = None
    colour: bool = False

    def paint(self, meaning: str | None, text: str) -> str:
        """The text in the colour of its meaning."""
        if not self.colour or meaning is None:
            return text
        return f"\x1b[{CODES[meaning]}m{text}\x1b[0m"


def terminal_for(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Terminal:
    """Width and colour of a terminal; NO_COLOR (no-color.org) and TERM=dumb switch the colour off."""
    if not stream.isatty():
        return Terminal()
    plain = bool(environ.get("NO_COLOR")) or environ.get("TERM", "dumb") == "dumb"
    import shutil  # slow to import, and not needed for --json

    return Terminal(shutil.get_terminal_size().columns, not plain)


def encodable(text: str, stream: TextIO = sys.stdout) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def cells(text: str) -> int:
    """The number of terminal cells of the text: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int) -> str:
    """The text, padded with blanks to this many cells."""
    return text + " " * (width - cells(text))


def clip(text: str, width: int) -> str:
    """The text, cut to this many cells, with `…` at the end if it was cut."""
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
    """Aligned columns, the last one wrapped to the terminal's width; an absent value is a dash."""
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
    last, available = line[-1], None if terminal.width is None else terminal.width - indent
    if available is not None and available < NARROWEST and cells(last.text) > available:
        indent, lines = BELOW, [first]
        rest = wrap(last.text, max((terminal.width or 0) - BELOW, NARROWEST))
    else:
        begin, *rest = wrap(last.text, available)
        lines = [first + terminal.paint(last.meaning, begin)]
    lines += [" " * indent + terminal.paint(last.meaning, text) for text in rest]
    return [text.rstrip() for text in lines]


def wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width` characters; at least one line."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
