"""The texts of all policy files -> one Policy, or all their problems.

Each file is parsed and checked against the schema (document), then its meaning is read here. Names that must be unique
over all files are kept in one _Collected. Reading continues after a problem, for any shape of the document, so all
problems are reported at once. A Policy is returned only if there is no problem.
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
from xenplug.core.policy.digest import digest
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
"""Seconds. Any device that is plugged in there within that time inherits the rule: a long time is a security risk."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of reading the policy files: a Policy, or None and the problems."""

    policy: Policy | None
    problems: tuple[Problem, ...] = ()
    digest: str | None = None
    """Of the files (core/policy/digest); None without a policy, or if it is not in files of its own."""


@dataclass(slots=True)
class _Collected:
    """The contents of the files read so far, and where each name was used first."""

    rules: list[Rule] = field(default_factory=list)
    guests: dict[str, GuestPolicy] = field(default_factory=dict)
    protect: list[Protection] = field(default_factory=list)
    single: dict[str, Node] = field(default_factory=dict)
    """`default`, `auto_protect` and `label`."""
    first_uses: dict[tuple[str, str], Where] = field(default_factory=dict)

    def first(self, what: str, name: str, where: Where) -> Where | None:
        """Where this name was used before; None if this is the first time."""
        before = self.first_uses.setdefault((what, name), where)
        return before if before is not where else None


def load(files: Mapping[str, bytes]) -> Loaded:
    """Read the files (name -> contents), in the order in which their rules are tried. Never raises."""
    collected = _Collected()
    with _no_garbage_collection():
        loaded = _loaded(
            collected, [problem for file, text in files.items() for problem in _file(file, text, collected)]
        )
    return replace(loaded, digest=digest(files)) if loaded.policy else loaded


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector: a big policy has 100,000 live values, and scanning them doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def load_node(node: Node, file: str) -> Loaded:
    """A policy inside another document (a scenario), which is already parsed. Never raises."""
    collected = _Collected()
    return _loaded(collected, _tree(node, file, collected))


def _loaded(collected: _Collected, problems: Sequence[Problem]) -> Loaded:
    entries: list[Rule | Protection] = [*collected.rules, *collected.protect]
    problems = [*problems, *too_much((entry.where, entry.conditions) for entry in entries)]
    return Loaded(None if problems else _policy(collected), tuple(problems))


def _file(file: str, text: bytes, collected: _Collected) -> list[Problem]:
    node, syntax = parse(text, file)
    return syntax if node is None else merge(syntax, _tree(node, file, collected))


def _tree(node: Node, file: str, collected: _Collected) -> list[Problem]:
    report = Report(file)
    _sections(node, collected, report)
    return merge(report.problems, validate(node, schema("policy"), file))


def _sections(node: Node, collected: _Collected, report: Report) -> None:
    parts = node.mapping
    for name, entry in _entries(parts.get("guests")):
        _guest(name, entry, collected, report)
    for index, entry in enumerate(_list(parts.get("protect"))):
        path: Path = ["protect", index]
        collected.protect.append(Protection(_where(entry, report), conditions(entry, path, report)))
    for index, entry in enumerate(_list(parts.get("rules"))):
        collected.rules.append(_rule(entry, ["rules", index], collected, report))
    for key in ("label", "default", "auto_protect"):
        if key in parts:
            _once(collected, key, node.key(key), report)
            collected.single.setdefault(key, parts[key])
    label = parts.get("label")
    if label and label.text and not label.text.isprintable():
        report.add(label.position, ["label"], f"{shown(label.text)} contains a control character; remove it")


def _entries(section: Node | None) -> Iterator[tuple[tuple[str, Position], Node]]:
    for name, entry in section.mapping.items() if section else ():
        yield (name, section.key(name) if section else entry.position), entry


def _list(section: Node | None) -> list[Node]:
    return list(section.items) if section else []


def _where(node: Node, report: Report) -> Where:
    return Where(report.file, node.line, node.column)


def _once(collected: _Collected, key: str, position: Position, report: Report) -> None:
    before = collected.first("key", key, Where(report.file, *position))
    if before:
        report.add(position, [key], f"is set twice, first at {before}; keep one")


def _guest(named: tuple[str, Position], entry: Node, collected: _Collected, report: Report) -> None:
    name, position = named
    path: Path = ["guests", name]
    before = collected.first("guest", name, Where(report.file, *position))
    fault = f"{shown(name)} is described twice, first at {before}; keep one" if before else name_fault(name)
    if fault:
        report.add(position, path, fault)
    read = guest_policy(entry, path, report)
    collected.guests.setdefault(name, replace(read, where=Where(report.file, *position)))


def _rule(node: Node, path: Path, collected: _Collected, report: Report) -> Rule:
    parts = node.mapping
    where = _where(node, report)
    match, attach = parts.get("match"), parts.get("attach")
    return Rule(
        name=_name(node, path, collected, report),
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
        report.add(node.position, path, str(error))
        return None
    if not 0 < seconds <= LONGEST_FOLLOW:
        report.add(node.position, path, f"{node.text!r} is out of range; write more than 0 and at most 10m")
    return seconds


def _text(node: Node | None) -> str | None:
    return node.text if node else None


def _name(node: Node, path: Path, collected: _Collected, report: Report) -> str:
    where = _where(node, report)
    named = node.mapping.get("name")
    name = _text(named)
    if not named or not name:
        # Two rules can be on one line; the column distinguishes them.
        return str(where) if not collected.first("rule", str(where), where) else f"{where}:{where.column}"
    before = collected.first("rule", name, where)
    if before:
        report.add(
            named.position, [*path, "name"], f"{shown(name)} is also the name of the rule at {before}; rename one"
        )
    elif not name.isprintable():
        report.add(named.position, [*path, "name"], f"{shown(name)} contains a control character; remove it")
    return name


def _guests(attach: Node, path: list[str | int], report: Report) -> tuple[str, ...]:
    names: list[str] = []
    for index, entry in enumerate(attach.one_or_more):
        name = entry.text
        if name is None:
            continue
        fault = f"{shown(name)} is listed twice; keep one" if name in names else name_fault(name)
        if fault:
            report.add(entry.position, path if entry is attach else [*path, index], fault)
        names.append(name)
    return tuple(names)


def _policy(collected: _Collected) -> Policy:
    """The Policy of files that passed the schema, so all values have the expected form."""
    usual = Policy()
    kept = collected.single.get("auto_protect")
    return Policy(
        rules=tuple(collected.rules),
        guests=MappingProxyType(collected.guests),
        protect=tuple(collected.protect),
        auto_protect=frozenset(Use(item.text or "") for item in kept.items) if kept else usual.auto_protect,
        default=choice(collected.single.get("default"), Action) or usual.default,
        label=_text(collected.single.get("label")),
    )
