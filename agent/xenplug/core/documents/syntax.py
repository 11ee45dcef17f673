"""Syntax errors of the YAML parser, in words for the author of a policy.

PyYAML's two parsers (libyaml and the Python one) word the same mistakes differently; each entry of the table matches
both. document.parse calls this with the contents of the exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xenplug.core.documents.problems import Position, shown

ALIAS = re.compile(r"\*[^\s,\]}#]*")
QUOTED = "while scanning a quoted scalar"
MAX_DEPTH = 32
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep; check the brackets"


@dataclass(frozen=True, slots=True)
class Complaint:
    """The contents of the exception: what was being read (`context`, since `begun`), and the error at a place."""

    context: str
    begun: Position | None
    problem: str
    at: Position


SYNTAX_MESSAGES: tuple[tuple[str, str], ...] = (
    (
        r"mapping values are not allowed",
        "YAML expects no ':' here; quote the text if it contains ': ', or correct the indentation of the line",
    ),
    (
        r"did not find expected (key|'-' indicator)|expected <block end>",
        "this does not belong to the {what} that begins at line {line}; check the indentation {also}",
    ),
    (r"could not find expected ':'", "text where a key was expected; write `key: value`"),
    (r"(block )?sequence entries are not allowed", "a list cannot begin here; write each '- ' on a new line"),
    (
        r"expected ',' or '(?P<end>.)'",
        "the {what} that begins at line {line} is not closed; write ',' between its entries and '{end}' at its end",
    ),
    (
        r"unknown escape character",
        "unknown escape sequence in double quotes; use 'single quotes', or write \\\\ for a backslash",
    ),
    (
        r"(hexdecimal|hexadecimal|Unicode character escape)",
        "invalid character escape in double quotes; use 'single quotes', or write \\\\ for a backslash",
    ),
    (
        r"maximum nesting depth",
        TOO_DEEP,
    ),  # libyaml's own limit, 1000: it reads that far ahead of the events that it returns
    (r"undefined tag handle|tag", "YAML reads this '!' as a tag; put the value in quotes"),
    (
        r"directive|incompatible YAML",
        "YAML reads this '%' as a directive; remove the line, or put the value in quotes",
    ),
)
WHAT = {
    "block mapping": "mapping",
    "block sequence": "list",
    "block collection": "list",
    "flow mapping": "mapping",
    "flow sequence": "list",
}


def explain(complaint: Complaint, text: str) -> tuple[Position, str]:
    """The best position for the error, and fact and remedy in one line. `text` is the whole document."""
    special = _alias(complaint, text) or _quote(complaint) or _character(complaint, text)
    return special or (complaint.at, _worded(complaint))


def _worded(complaint: Complaint) -> str:
    for pattern, sentence in SYNTAX_MESSAGES:
        found = re.search(pattern, complaint.problem)
        if found:
            end = found.groupdict().get("end", "")
            what = _what(complaint.context)
            also = "and that each entry begins with '- '" if what == "list" else "and the quotes"
            return sentence.format(what=what, also=also, line=_begun(complaint).line, end=end)
    return f"YAML cannot read this ({complaint.problem or 'unknown error'}); check the indentation and the quotes"


def _what(context: str) -> str:
    return next((word for name, word in WHAT.items() if name in context), "value")


def _begun(complaint: Complaint) -> Position:
    return complaint.begun or complaint.at


def _alias(complaint: Complaint, text: str) -> tuple[Position, str] | None:
    """`*:*` without quotes: the parser takes it for an alias and fails inside it."""
    if "scanning an alias" not in complaint.context:
        return None
    found = ALIAS.match(_rest(text, _begun(complaint)))
    return _begun(complaint), alias_help(found[0] if found else "*")


def alias_help(typed: str) -> str:
    """The message for `*…` that was meant as text."""
    typed = shown(typed)[1:-1]
    return f'YAML reads an unquoted {typed} as an alias; quote it: "{typed}"'


def _quote(complaint: Complaint) -> tuple[Position, str] | None:
    if complaint.context == QUOTED and re.search("end of stream|document (indicator|separator)", complaint.problem):
        return _begun(complaint), "the quote opened here is never closed; close it"
    return None


def _character(complaint: Complaint, text: str) -> tuple[Position, str] | None:
    if "tab character" in complaint.problem:
        return complaint.at, "a tab; indent with spaces"
    if "cannot start any token" not in complaint.problem:
        return None
    character = _rest(text, complaint.at)[:1]
    if character == "\t":
        return complaint.at, "a tab; indent with spaces"
    return complaint.at, f"a value cannot begin with {character}; put the value in quotes"


def _rest(text: str, at: Position) -> str:
    """The rest of the line from a position on."""
    lines = text.splitlines()
    return lines[at.line - 1][at.column - 1 :] if at.line <= len(lines) else ""
