"""What a rule says of whole host controllers: `via`, `siblings`, `fallback`. Read for policy/load."""

from __future__ import annotations

from xenplug.core.documents.node import Node, choice
from xenplug.core.documents.problems import Path
from xenplug.core.documents.report import Report
from xenplug.core.policy.rules import Fallback, Siblings, Via


def fallback(rule: Node, path: Path, report: Report) -> Fallback | None:
    """The rule's fallback, if it has one. The schema sees to its shape; here is what a schema cannot say."""
    parts = rule.mapping
    via, siblings, node = parts.get("via"), parts.get("siblings"), parts.get("fallback")
    by_pci = choice(via, Via) == Via.PCI
    if siblings is not None and not by_pci:
        told = "means nothing without `via: pci`; in a fallback write it inside: fallback: {via: pci, siblings: …}"
        report.tell(rule.key("siblings"), [*path, "siblings"], told)
    if node is None:
        return None
    if by_pci:
        told = "means nothing beside `via: pci`, which is all there is to fall back to; leave one of them out"
        report.tell(rule.key("fallback"), [*path, "fallback"], told)
    when = node.mapping.get("when")
    conditions = frozenset(item.text or "" for item in when.one_or_more) if when else frozenset()
    return Fallback(conditions, choice(node.mapping.get("siblings"), Siblings) or Siblings.REFUSE)
