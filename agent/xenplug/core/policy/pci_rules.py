"""The keys of a rule about whole host controllers: `via`, `siblings`, `fallback`. Used by policy/load."""

from __future__ import annotations

from xenplug.core.documents.node import Node, choice
from xenplug.core.documents.problems import Path
from xenplug.core.documents.report import Report
from xenplug.core.policy.rules import Fallback, Siblings, Via


def fallback(rule: Node, path: Path, report: Report) -> Fallback | None:
    """The rule's fallback, if it has one. The schema checks its shape; this checks what a schema cannot express."""
    parts = rule.mapping
    via, siblings, node = parts.get("via"), parts.get("siblings"), parts.get("fallback")
    by_pci = choice(via, Via) == Via.PCI
    if siblings is not None and not by_pci:
        message = "has no effect without `via: pci`; for a fallback, write fallback: {via: pci, siblings: …}"
        report.add(rule.key("siblings"), [*path, "siblings"], message)
    if node is None:
        return None
    if by_pci:
        message = "has no effect with `via: pci`, because pci is the only fallback; remove one of the two"
        report.add(rule.key("fallback"), [*path, "fallback"], message)
    when = node.mapping.get("when")
    conditions = frozenset(item.text or "" for item in when.one_or_more) if when else frozenset()
    return Fallback(conditions, choice(node.mapping.get("siblings"), Siblings) or Siblings.REFUSE)
