"""What YAML's own parser complains about, in words for someone who writes a policy.

PyYAML's two parsers (libyaml and the Python one) word the same mistakes differently; each entry of the table knows
both. document.parse calls this with what the exception holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xenplug.core.documents.problems import Position, shown

ALIAS = re.compile(r"\*[^\s,\]}#]*")
QUOTED = "while scanning a quoted scalar"
MAX_DEPTH = 32
TOO_DEEP = f"nested more than {MAX_DEPTH} deep; no document here needs that, check the brackets"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What the exception says: where something began (`context`) and where it went wrong (`problem`)."""

    context: str
    begun: Position | None
    problem: str
    at: Position


SYNTAX_MESSAGES: tuple[tuple[str, str], ...] = (
    (
        r"mapping values are not allowed",
        "a ':' that YAML cannot place; quote the text if it holds ': ', else set the line's indentation right",
    ),
    (
        r"did not find expected (key|'-' indicator)|expected <block end>",
        "this does not fit the {what} begun at line {line}; check indentation {also}",
    ),
    (r"could not find expected ':'", "text where a key was expected; write `key: value`"),
    (r"(block )?sequence entries are not allowed", "a '- ' where no list can stand; put the list on lines of its own"),
    (
        r"expected ',' or '(?P<end>.)'",
        "the {what} begun at line {line} is not closed here; put a ',' between its entries and a '{end}' at its end",
    ),
    (
        r"unknown escape character",
        "a backslash in double quotes that YAML does not know; use 'single quotes', or write \\\\",
    ),
    (
        r"(hexdecimal|hexadecimal|Unicode character escape)",
        "a broken character escape in double quotes; use 'single quotes', or write \\\\ for a backslash",
    ),
    (r"maximum nesting depth", TOO_DEEP),  # libyaml's own limit, 1000: it reads that far ahead of what it tells
    (r"undefined tag handle|tag", "a '!' that YAML reads as a tag; put the value in quotes"),
    (
        r"directive|incompatible YAML",
        "a '%' that YAML reads as a directive; take the line out, or put the value in quotes",
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
    """Where the mistake is best shown, and fact and remedy in one line. `text` is the whole document."""
    special = _alias(complaint, text) or _quote(complaint) or _character(complaint, text)
    return special or (complaint.at, _worded(complaint))


def _worded(complaint: Complaint) -> str:
    for pattern, sentence in SYNTAX_MESSAGES:
        found = re.search(pattern, complaint.problem)
        if found:
            end = found.groupdict().get("end", "")
            what = _what(complaint.context)
            also = "and that each entry begins with '- '" if what == "list" else "and quotes"
            return sentence.format(what=what, also=also, line=_begun(complaint).line, end=end)
    return f"YAML cannot read this ({complaint.problem or 'no reason given'}); check indentation and quotes"


def _what(context: str) -> str:
    return next((word for name, word in WHAT.items() if name in context), "value")


def _begun(complaint: Complaint) -> Position:
    return complaint.begun or complaint.at


def _alias(complaint: Complaint, text: str) -> tuple[Position, str] | None:
    """`*:*` without quotes: the parser fails inside what it takes for an alias."""
    if "scanning an alias" not in complaint.context:
        return None
    found = ALIAS.match(_rest(text, _begun(complaint)))
    return _begun(complaint), alias_help(found[0] if found else "*")


def alias_help(typed: str) -> str:
    """For `*…` that was meant as text."""
    typed = shown(typed)[1:-1]
    return f'YAML reads an unquoted {typed} as an alias; quote it: "{typed}"'


def _quote(complaint: Complaint) -> tuple[Position, str] | None:
    if complaint.context == QUOTED and re.search("end of stream|document (indicator|separator)", complaint.problem):
        return _begun(complaint), "the quote opened here is never closed; close it"
    return None


def _character(complaint: Complaint, text: str) -> tuple[Position, str] | None:
    if "tab character" in complaint.problem:
        return complaint.at, "a tab; indent with blanks"
    if "cannot start any token" not in complaint.problem:
        return None
    character = _rest(text, complaint.at)[:1]
    if character == "\t":
        return complaint.at, "a tab; indent with blanks"
    return complaint.at, f"no value can begin with {character}; put the value in quotes"


def _rest(text: str, at: Position) -> str:
    """The rest of the line from a position on."""
    lines = text.splitlines()
    return lines[at.line - 1][at.column - 1 :] if at.line <= len(lines) else ""
