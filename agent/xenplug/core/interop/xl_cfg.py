"""Reads a guest's xl configuration as far as USB needs it: names, each with a string or a list of strings.

The grammar is libxlu's (xen tools/libs/util/libxlu_cfg_l.l): `name = value`, where a value is a number, a quoted string
or a list of these over several lines; `#` begins a comment. Invalid parts are skipped: xl itself reports them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Value = str | tuple[str, ...]

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\\\n)|(?P<comment>\#[^\n]*)|(?P<end>[\n;])|"(?P<double>(?:\\.|[^"\\\n])*)"
    |'(?P<single>(?:\\.|[^'\\\n])*)'|(?P<word>[A-Za-z0-9_.\-+]+)|(?P<mark>[=\[\],])|(?P<other>.)""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and the line it begins on."""

    value: Value
    line: int


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def read(text: str) -> Mapping[str, Setting]:
    """The settings of a configuration file by name; the last one counts if a name is set twice, as in xl."""
    found: dict[str, Setting] = {}
    tokens = _tokens(text)
    at = 0
    while at + 2 < len(tokens):
        name, equals = tokens[at], tokens[at + 1]
        if name.kind != "word" or equals.text != "=" or equals.kind != "mark":
            at += 1
            continue
        value, at = _value(tokens, at + 2)
        if value is not None:
            found[name.text] = Setting(value, name.line)
    return found


def _tokens(text: str) -> list[_Token]:
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind not in ("blank", "comment"):
            tokens.append(_Token("text" if kind in ("double", "single") else kind, match[kind], line))
        line += match[0].count("\n")
    return [*tokens, _Token("end", "\n", line), _Token("end", "\n", line)]


def _value(tokens: list[_Token], at: int) -> tuple[Value | None, int]:
    token = tokens[at]
    if token.kind in ("text", "word"):
        return token.text, at + 1
    if token.kind != "mark" or token.text != "[":
        return None, at
    items: list[str] = []
    at += 1
    while at < len(tokens) and not (tokens[at].kind == "mark" and tokens[at].text == "]"):
        if tokens[at].kind in ("text", "word"):
            items.append(tokens[at].text)
        elif tokens[at].text == "=":  # a list that was never closed: the next setting begins
            return tuple(items[:-1]), at - 1
        at += 1
    return tuple(items), at + 1


def spec(text: str) -> Mapping[str, str]:
    """The keys of one entry of a list such as usbctrl: `type=qusb,version=2`. Spaces before a key are ignored."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    return {key.lstrip(" ").strip(): value.strip() for key, _, value in pairs}
