"""A policy as udev rules that mark what goes to guests, so that dom0's automounter and ModemManager leave it alone.

For `xenplug udev-rules`. The rules only set a tag and properties; the agent decides without them. They follow the
policy: protection first, then rule by rule, the first that matches wins (GOTO). udevmatch writes the conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, product
from math import prod

from xenplug.core.interop.udev_match import MAX_ALTERNATIVES, Inexpressible, terms
from xenplug.core.policy.rules import Condition, Policy
from xenplug.core.printable import printable

GUEST, END = "xenplug_guests_guest", "xenplug_guests_end"

RULES_HEAD = f"""\
# Made by `xenplug udev-rules` from the policy; make it anew when the policy changes.
#
# Devices that a rule gives to a guest are tagged xenplug-guest. 70-xenplug.rules keeps udisks and NetworkManager off
# what lies below them; ModemManager looks at the device itself. What no rule gives away is left as it is.

ACTION=="remove", GOTO="{END}"
SUBSYSTEM!="usb", GOTO="{END}"
ENV{{DEVTYPE}}!="usb_device", GOTO="{END}"

# 50-udev-default.rules has done the first for all devices, but not the second.
ENV{{ID_USB_INTERFACES}}=="", IMPORT{{builtin}}="usb_id"
ENV{{ID_PATH}}=="", IMPORT{{builtin}}="path_id"

# hubs are never given away
ATTR{{bDeviceClass}}=="09", GOTO="{END}"
ENV{{ID_USB_INTERFACES}}=="*:09????:*", GOTO="{END}"
"""
RULES_TAIL = f"""
GOTO="{END}"

LABEL="{GUEST}"
TAG+="xenplug-guest", ENV{{ID_MM_DEVICE_IGNORE}}="1"
"""
_LINE = re.compile(r'(?P<key>[^=!]+)=="(?P<value>[^"]*)"\Z')
_GLOB = re.compile(r"[*?\[]")


def render(policy: Policy) -> tuple[str, list[str]]:
    """The text of the rules file, and a sentence for everything in the policy that it does not say."""
    left_out: list[str] = []
    parts = [RULES_HEAD]
    for entry in policy.protect:
        parts.append(_block(f"protect ({entry.where})", entry.conditions, "protect", left_out))
    for rule in policy.rules:
        parts.append(_block(f"{rule.name} ({rule.where})", rule.conditions, rule.action, left_out))
    if any(f'GOTO="{GUEST}"' in part for part in parts):
        parts.append(RULES_TAIL)
    parts.append(f'\nLABEL="{END}"\n')
    given = [*(entry.conditions for entry in policy.protect), *(rule.conditions for rule in policy.rules)]
    if any(condition.key == "path" for condition in chain.from_iterable(given)):
        left_out.append(
            "udev does not tell which USB 2 socket a SuperSpeed device is in: `path` finds none of these here "
            "(the agent does)"
        )
    return "".join(parts), left_out


EFFECT = {
    "attach": "what only it gives to guests is not marked",
    "protect": "what it protects is marked if a rule would give it to a guest",
}
"""What comes of a rule that is left out, by action; host and block alike."""


def _block(title: str, conditions: Sequence[Condition], action: str, left_out: list[str]) -> str:
    """The lines of one rule."""
    try:
        lines = list(_lines(conditions, GUEST if action == "attach" else END, action == "protect"))
    except Inexpressible as reason:
        effect = EFFECT.get(action, "what it keeps from guests is marked if a later rule would give it away")
        left_out.append(f"{_shown(title)} is left out: {reason}; {effect}")
        return f"\n# {_shown(title)}: left out, udev cannot tell\n"
    return "".join(f"{line}\n" for line in (f"\n# {_shown(title)}: {action}", *lines))


def _lines(conditions: Sequence[Condition], target: str, protect: bool) -> Iterator[str]:
    choices = [terms(condition, protect=protect) for condition in conditions]
    if prod(map(len, choices)) > MAX_ALTERNATIVES:
        raise Inexpressible("its keys together take too many lines")
    for combination in product(*choices):
        expressions = list(dict.fromkeys(chain.from_iterable(combination)))
        if _possible(expressions):
            yield ", ".join((*expressions, f'GOTO="{target}"'))


def _possible(expressions: Sequence[str]) -> bool:
    """Whether no two of them ask one key for different plain values (udevadm verify takes such a line for an error)."""
    asked: dict[str, set[str]] = {}
    for expression in expressions:
        found = _LINE.match(expression)
        if not found or _GLOB.search(found["value"]):
            continue
        values = set(found["value"].split("|"))
        if not asked.setdefault(found["key"], values) & values:
            return False
    return True


def _shown(text: str) -> str:
    """Fit for a comment: one line, and no backslash that would join it to the next."""
    return printable(text).replace("\\", "?")[:200]
