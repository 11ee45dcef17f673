"""The texts of all policy files -> one Policy, or everything that is wrong with them.

Each file is parsed and checked against the schema (document), then its meaning is read here; what must be unique over
all files is kept in one _Book. Reading goes on after a problem, whatever shape the document has, so that all problems
come at once; a Policy comes only where there is none.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from xenplug.core.documents.document import parse, schema, validate
from xenplug.core.documents.node import Node, choice
from xenplug.core.documents.problems import Path, Position, Problem, merge, shown
from xenplug.core.documents.report import Report
from xenplug.core.documents.units import duration
from xenplug.core.model import Use
from xenplug.core.policy.conditions import conditions
from xenplug.core.policy.effort import too_much
from xenplug.core.policy.guests import guest_policy, name_fault
from xenplug.core.policy.pci_rules import fallback
from xenplug.core.policy.rules import (
    Action,
    Ambiguous,
    GuestPolicy,
    Move,
    Policy,
    Protection,
    Rule,
    Siblings,
    Via,
    Where,
)

LONGEST_FOLLOW = 600.0
"""Seconds. Whatever is plugged in there within that time inherits: a long one is a hole."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What reading the policy files gave: a Policy, or None and the problems that forbid it."""

    policy: Policy | None
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Collected:
    """What the files read so far say, and where each thing was said first."""

    rules: list[Rule] = field(default_factory=list)
    guests: dict[str, GuestPolicy] = field(default_factory=dict)
    protect: list[Protection] = field(default_factory=list)
    single: dict[str, Node] = field(default_factory=dict)
    """`default` and `auto_protect`."""
    said: dict[tuple[str, str], Where] = field(default_factory=dict)

    def first(self, what: str, name: str, where: Where) -> Where | None:
        """Where this was said before; None if this is the first time."""
        before = self.said.setdefault((what, name), where)
        return before if before is not where else None


def load(files: Mapping[str, bytes]) -> Loaded:
    """Read the files, names and contents in the order in which their rules are tried. Never raises."""
    book = _Collected()
    with _collecting_nothing():
        return _loaded(book, [problem for file, text in files.items() for problem in _file(file, text, book)])


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """A big policy is a hundred thousand values that all live: looking for garbage among them doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def load_node(node: Node, file: str) -> Loaded:
    """A policy that stands inside another document (a scenario's), which is parsed already. Never raises."""
    book = _Collected()
    return _loaded(book, _tree(node, file, book))


def _loaded(book: _Collected, problems: Sequence[Problem]) -> Loaded:
    entries: list[Rule | Protection] = [*book.rules, *book.protect]
    problems = [*problems, *too_much((entry.where, entry.conditions) for entry in entries)]
    return Loaded(None if problems else _policy(book), tuple(problems))


def _file(file: str, text: bytes, book: _Collected) -> list[Problem]:
    node, syntax = parse(text, file)
    return syntax if node is None else merge(syntax, _tree(node, file, book))


def _tree(node: Node, file: str, book: _Collected) -> list[Problem]:
    report = Report(file)
    _sections(node, book, report)
    return merge(report.problems, validate(node, schema("policy"), file))


def _sections(node: Node, book: _Collected, report: Report) -> None:
    parts = node.mapping
    for name, entry in _entries(parts.get("guests")):
        _guest(name, entry, book, report)
    for index, entry in enumerate(_list(parts.get("protect"))):
        path: Path = ["protect", index]
        book.protect.append(Protection(_where(entry, report), conditions(entry, path, report)))
    for index, entry in enumerate(_list(parts.get("rules"))):
        book.rules.append(_rule(entry, ["rules", index], book, report))
    for key in ("default", "auto_protect"):
        if key in parts:
            _once(book, key, node.key(key), report)
            book.single.setdefault(key, parts[key])


def _entries(section: Node | None) -> Iterator[tuple[tuple[str, Position], Node]]:
    for name, entry in section.mapping.items() if section else ():
        yield (name, section.key(name) if section else entry.position), entry


def _list(section: Node | None) -> list[Node]:
    return list(section.items) if section else []


def _where(node: Node, report: Report) -> Where:
    return Where(report.file, node.line, node.column)


def _once(book: _Collected, key: str, position: Position, report: Report) -> None:
    before = book.first("key", key, Where(report.file, *position))
    if before:
        report.tell(position, [key], f"given twice, first at {before}; keep one")


def _guest(named: tuple[str, Position], entry: Node, book: _Collected, report: Report) -> None:
    name, position = named
    path: Path = ["guests", name]
    before = book.first("guest", name, Where(report.file, *position))
    fault = f"{shown(name)} is described twice, first at {before}; keep one" if before else name_fault(name)
    if fault:
        report.tell(position, path, fault)
    read = guest_policy(entry, path, report)
    book.guests.setdefault(name, replace(read, where=Where(report.file, *position)))


def _rule(node: Node, path: Path, book: _Collected, report: Report) -> Rule:
    parts = node.mapping
    where = _where(node, report)
    match, attach = parts.get("match"), parts.get("attach")
    return Rule(
        name=_name(node, path, book, report),
        where=where,
        conditions=conditions(match, [*path, "match"], report) if match else (),
        action=Action.ATTACH if attach else choice(parts.get("action"), Action) or Action.HOST,
        guests=_guests(attach, [*path, "attach"], report) if attach else (),
        move=choice(parts.get("move"), Move),
        idle=choice(parts.get("idle"), Action) or Action.HOST,
        follow=_seconds(parts.get("follow"), [*path, "follow"], report),
        ambiguous=choice(parts.get("ambiguous"), Ambiguous),
        via=choice(parts.get("via"), Via) or Via.USB,
        siblings=choice(parts.get("siblings"), Siblings) or Siblings.REFUSE,
        fallback=fallback(node, path, report),
    )


def _seconds(node: Node | None, path: Path, report: Report) -> float | None:
    if node is None or node.text is None:
        return None
    try:
        seconds = duration(node.text)
    except ValueError as error:
        report.tell(node.position, path, str(error))
        return None
    if not 0 < seconds <= LONGEST_FOLLOW:
        report.tell(node.position, path, f"{node.text!r} is out of range; write more than 0 and at most 10m")
    return seconds


def _text(node: Node | None) -> str | None:
    return node.text if node else None


def _name(node: Node, path: Path, book: _Collected, report: Report) -> str:
    where = _where(node, report)
    given = node.mapping.get("name")
    name = _text(given)
    if not given or not name:
        # Two rules can stand on one line; the column tells them apart.
        return str(where) if not book.first("rule", str(where), where) else f"{where}:{where.column}"
    before = book.first("rule", name, where)
    if before:
        report.tell(
            given.position, [*path, "name"], f"{shown(name)} is also the name of the rule at {before}; rename one"
        )
    elif not name.isprintable():
        report.tell(given.position, [*path, "name"], f"{shown(name)} holds a control character; remove it")
    return name


def _guests(attach: Node, path: list[str | int], report: Report) -> tuple[str, ...]:
    names: list[str] = []
    for index, entry in enumerate(attach.one_or_more):
        name = entry.text
        if name is None:
            continue
        fault = f"{shown(name)} stands in this list twice; keep one" if name in names else name_fault(name)
        if fault:
            report.tell(entry.position, path if entry is attach else [*path, index], fault)
        names.append(name)
    return tuple(names)


def _policy(book: _Collected) -> Policy:
    """Every file has passed the schema: what is here has its shape."""
    usual = Policy()
    kept = book.single.get("auto_protect")
    return Policy(
        rules=tuple(book.rules),
        guests=MappingProxyType(book.guests),
        protect=tuple(book.protect),
        auto_protect=frozenset(Use(item.text or "") for item in kept.items) if kept else usual.auto_protect,
        default=choice(book.single.get("default"), Action) or usual.default,
    )
