"""All checks in the order in which they are reported: a check comes after those that it depends on."""

from __future__ import annotations

from typing import Any

from xenplug.core.doctor import configs, holders, host, running, toolstack, usbctrl, usbhost
from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.findings import Check, Finding, Severity

CHECKS: tuple[Check, ...] = (
    *toolstack.CHECKS,
    *configs.CHECKS,
    *usbctrl.CHECKS,
    *running.CHECKS,
    *usbhost.CHECKS,
    *holders.CHECKS,
    *host.CHECKS,
)

Examined = list[tuple[Check, list[Finding]]]


def examine(facts: Facts) -> Examined:
    """Every check with its findings; checks that need a running Xen are skipped without one."""
    return [(check, list(check.look(facts))) for check in CHECKS if facts.toolstack.dom0 or not check.xen]


def sound(examined: Examined) -> bool:
    """Whether no finding is bad."""
    return not any(f.severity is Severity.BAD for _, findings in examined for f in findings)


def view(examined: Examined) -> dict[str, Any]:
    """The output of `doctor --json`."""
    return {
        "sound": sound(examined),
        "checks": [
            {
                "name": check.name,
                "title": check.title,
                "findings": [{"severity": str(f.severity), "fact": f.fact, "remedy": f.remedy} for f in findings],
            }
            for check, findings in examined
        ],
    }
