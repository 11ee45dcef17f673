"""Columns, widths and colours of the output for people."""

import io

import pytest

from xenplug.cli.layout import Cell, Terminal, cells, clip, encodable, pad, table, terminal_for, wrap


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("text", "width"), [("mouse", 5), ("マウス", 6), ("e\u0301", 1), ("", 0), ("a\u200bb", 2)])
def test_cells(text, width):
    assert cells(text) == width
    assert cells(pad(text, 9)) == 9


@pytest.mark.parametrize(("text", "width", "cut"), [
    ("mouse", 5, "mouse"), ("mouse", 4, "mou…"), ("マウス", 5, "マウ…"), ("マウス", 4, "マ…"), ("mouse", 0, ""),
])  # fmt: skip
def test_clip(text, width, cut):
    assert clip(text, width) == cut


def test_a_table_wraps_its_last_column_only():
    lines = table(("A", "WHY"), [("1", "a long reason that needs lines"), (None, "")], Terminal(30))
    assert lines == ["A  WHY", "1  a long reason that needs", "   lines", "-  -"]
    assert table(("A", "WHY"), [("1", "a long reason " * 9)])[1].count("reason") == 9


def test_a_last_column_that_does_not_fit_is_put_below():
    rows = [("1-1", "pending", "the guest has no driver for it"), ("1-2", "host", "-")]
    lines = table(("PORT", "STATE", "WHY"), rows, Terminal(30))
    below = ["    the guest has no driver", "    for it"]
    assert lines == ["PORT  STATE    WHY", "1-1   pending", *below, "1-2   host     -"]
    assert all(cells(line) <= 30 for line in lines)


def test_wide_names_keep_columns_aligned():
    lines = table(("NAME", "X"), [("マウス", "1"), ("mouse", "2")])
    assert [cells(line) for line in lines] == [9, 9, 9]


def test_colour_does_not_count_as_width():
    plain = table(("A", "B"), [(Cell("x", "bad"), "y")])
    painted = table(("A", "B"), [(Cell("x", "bad"), "y")], Terminal(None, True))
    assert painted[1] == "\x1b[1;31mx\x1b[0m  y"
    assert plain[1] == "x  y"


@pytest.mark.parametrize(("environ", "colour"), [
    ({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ({"TERM": "dumb"}, False), ({}, False),
])  # fmt: skip
def test_which_terminals_get_colour(environ, colour, monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    assert terminal_for(FakeTerminal(), environ) == Terminal(77, colour)
    assert terminal_for(io.StringIO(), environ) == Terminal()


def test_encodable():
    assert encodable("├", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert not encodable("├", io.TextIOWrapper(io.BytesIO(), "ascii"))


def test_wrap_returns_at_least_one_line():
    assert wrap("", 10) == [""]
    assert wrap("a b", None) == ["a b"]
