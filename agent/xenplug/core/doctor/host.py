"""Checks of dom0 and of xenplug's own parts: files, rights, the service, and other programs that move USB devices."""

from __future__ import annotations

from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning

WRITABLE_BY_OTHERS = 0o022
LEAST_FREE = 1 << 20
"""Bytes that ledger and history need at least, with room to spare."""
NEEDED = {"pyudev": "0.24", "PyYAML": "6.0", "jsonschema": "4.10"}
"""Debian 12's own versions suffice."""
DEBIAN = {"pyudev": "python3-pyudev", "PyYAML": "python3-yaml", "jsonschema": "python3-jsonschema"}


def root(facts: Facts) -> Iterator[Finding]:
    """Much of this is for root's eyes."""
    if not facts.root:
        yield unknown("not everything can be looked at as this user", "run this as root")


def packages(facts: Facts) -> Iterator[Finding]:
    """What the agent imports."""
    for name, found in facts.install.packages.items():
        if found is None:
            yield bad(f"the Python package {name} is missing", f"apt-get install {DEBIAN[name]}")
        elif _numbers(found) < _numbers(NEEDED[name]):
            yield bad(f"the Python package {name} is {found}, older than {NEEDED[name]}", "install a newer one")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def policy(facts: Facts) -> Iterator[Finding]:
    """What does not load gives nothing to anybody."""
    for problem in facts.problems:
        yield bad(problem, "then `xenplug reload`")


def unit(facts: Facts) -> Iterator[Finding]:
    """The service must be there, and start at boot before the guests."""
    if facts.install.unit is None:
        yield warning("systemd knows no xenplug.service", "install the package, or packaging/xenplug.service by hand")
    elif not facts.install.enabled:
        yield warning("xenplug.service does not start at boot", "systemctl enable xenplug")


def agent(facts: Facts) -> Iterator[Finding]:
    """An agent that does not run clears no ports."""
    install = facts.install
    if install.agent is None:
        yield warning("no agent answers at the control socket", "systemctl start xenplug; journalctl -u xenplug")
    elif install.agent != install.version:
        yield warning(
            f"the agent that runs is {install.agent}, this command {install.version}", "systemctl restart xenplug"
        )


def udev_rules(facts: Facts) -> Iterator[Finding]:
    """Without them dom0's automounter gets a stick first, and what dom0 uses is not given away."""
    install = facts.install
    if install.wanted_rules is None:
        return
    if install.udev_rules is None:
        yield warning("70-xenplug.rules is not in place: dom0's services may take what is meant for guests",
                      "copy udev-rules/70-xenplug.rules to /etc/udev/rules.d")  # fmt: skip
    if install.guest_rules is None:
        yield warning("72-xenplug-guests.rules is not there: dom0's automounter takes what is meant for guests",
                      _MAKE_RULES)  # fmt: skip
    elif _rules_of(install.guest_rules) != _rules_of(install.wanted_rules):
        yield warning("72-xenplug-guests.rules was made from another policy", _MAKE_RULES)


_MAKE_RULES = (
    "xenplug udev-rules >/etc/udev/rules.d/72-xenplug-guests.rules && udevadm control --reload && "
    "update-initramfs -u where udev begins early"
)


def _rules_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def rights(facts: Facts) -> Iterator[Finding]:
    """Who can write the policy or a hook is root, as far as USB devices and hooks go."""
    for entry in facts.install.owned:
        if entry.uid != 0:
            yield bad(
                f"{entry.path} belongs to user {entry.uid}, who can give devices away", f"chown root {entry.path}"
            )
        if entry.mode & WRITABLE_BY_OTHERS:
            yield bad(f"{entry.path} can be written by others than root", f"chmod go-w {entry.path}")
    for place, words in facts.install.unsafe:
        fact, _, remedy = words.partition("; ")
        yield bad(f"{place}, on the way to a hook or xl: {fact}", remedy.strip("`"))


def group(facts: Facts) -> Iterator[Finding]:
    """The agent does not start with a group that is not there."""
    if not facts.install.group:
        name = facts.settings.control.group
        yield bad(f"the control socket's group {name} does not exist", f"addgroup --system {name}")


def room(facts: Facts) -> Iterator[Finding]:
    """Ledger and history must be written."""
    for folder, free in facts.install.free.items():
        if free < 0:
            yield bad(f"{folder} is read-only", "mount it for writing: the agent's ledger and history are kept there")
        elif free < LEAST_FREE:
            yield bad(f"{folder} has {free} bytes left", "make room: the agent's ledger and history are kept there")


def others(facts: Facts) -> Iterator[Finding]:
    """Two who move the same devices undo each other's work."""
    for where, what in facts.others.items():
        yield warning(f"{where}: {what}", "let one of the two move USB devices: drop that, or leave its devices out")


CHECKS = (
    Check("root", "everything could be looked at", root),
    Check("packages", "the Python packages are there", packages),
    Check("policy", "policy and settings load", policy),
    Check("service", "the service starts at boot", unit),
    Check("agent", "the agent answers", agent),
    Check("udev-rules", "dom0's services keep off what is meant for guests", udev_rules),
    Check("rights", "only root can change what the agent goes by", rights),
    Check("group", "the control socket's group exists", group),
    Check("room", "there is room for ledger and history", room),
    Check("others", "nobody else moves USB devices", others),
)
