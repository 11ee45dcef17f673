"""Checks of xenplug's installation in dom0: files, permissions, the service, and other programs that move devices."""

from __future__ import annotations

from collections.abc import Iterator

from xenplug.core.doctor.facts import Facts
from xenplug.core.doctor.findings import Check, Finding, bad, unknown, warning
from xenplug.core.host_system import Package, Services

WRITABLE_BY_OTHERS = 0o022
LEAST_FREE = 1 << 20
"""Bytes; more than ledger and history need."""
NEEDED = {"pyudev": "0.24", "PyYAML": "6.0", "jsonschema": "4.10"}
"""Debian 12's own versions suffice."""
PACKAGES = {"pyudev": Package.PYUDEV, "PyYAML": Package.YAML, "jsonschema": Package.JSONSCHEMA}


RULE_FILES = ("38-xenplug.rules", "92-xenplug.rules")
"""udev rules that come with xenplug: what must be set before the rules of dom0's services, and what after them."""
GUEST_RULES = "37-xenplug-guests.rules"
"""The output of `xenplug udev-rules` in /etc/udev/rules.d."""
OLD_RULES = ("70-xenplug.rules", "72-xenplug-guests.rules")
"""The names in earlier versions, which came too late for some services."""


def root(facts: Facts) -> Iterator[Finding]:
    """Only root can read some of the data."""
    if not facts.root:
        yield unknown("this user cannot check everything", "run this as root")


def packages(facts: Facts) -> Iterator[Finding]:
    """The agent imports these Python packages."""
    for name, found in facts.install.packages.items():
        if found is None:
            yield bad(f"the Python package {name} is missing", facts.system.install(PACKAGES[name]))
        elif _numbers(found) < _numbers(NEEDED[name]):
            yield bad(f"the Python package {name} is {found}, older than {NEEDED[name]}", "install a newer one")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def policy(facts: Facts) -> Iterator[Finding]:
    """With a policy that does not load, no device is attached."""
    for problem in facts.problems:
        yield bad(problem, "then run `xenplug reload`")


def unit(facts: Facts) -> Iterator[Finding]:
    """The service must exist and start at boot before the guests."""
    if facts.install.unit is None and facts.system.services in (Services.SYSTEMD, Services.UNKNOWN):
        yield warning("systemd does not find xenplug.service", "install the package, or packaging/xenplug.service")
    elif facts.install.unit is None:
        yield warning(
            "the service manager does not find xenplug", "write /etc/init.d/xenplug, which starts `xenplug run`"
        )
    elif not facts.install.enabled:
        yield warning("xenplug.service does not start at boot", facts.system.service("enable"))


def agent(facts: Facts) -> Iterator[Finding]:
    """While no agent runs, no device is attached and no port is cleared."""
    install = facts.install
    if install.agent is None:
        yield warning(
            "no agent answers at the control socket", f"{facts.system.service('start')}; {facts.system.log()}"
        )
    elif install.agent != install.version:
        yield warning(
            f"the running agent has version {install.agent}, this command {install.version}",
            facts.system.service("restart"),
        )


def udev_rules(facts: Facts) -> Iterator[Finding]:
    """Without these rules dom0's services use a device first: a stick that dom0's desktop mounts is never attached."""
    install, make_rules = facts.install, _MAKE_RULES + facts.system.make_initramfs() + _IF_UDEV
    if install.wanted_rules is None:
        return
    if missing := [name for name in RULE_FILES if name not in install.udev_rules]:
        yield warning(
            f"{' and '.join(missing)}: not installed, so dom0's services may use devices that are for guests",
            f"copy {' and '.join(f'udev-rules/{name}' for name in missing)} to /etc/udev/rules.d",
        )
    for path in install.old_rules:
        yield warning(f"{path} comes after the rules of some of dom0's services", f"rm {path}; {make_rules}")
    if install.guest_rules is None:
        yield warning(f"{GUEST_RULES} does not exist, so dom0's services use devices that are for guests", make_rules)
    elif _rules_of(install.guest_rules) != _rules_of(install.wanted_rules):
        yield warning(f"{GUEST_RULES} was generated from another policy", make_rules)


_MAKE_RULES = f"xenplug udev-rules >/etc/udev/rules.d/{GUEST_RULES} && udevadm control --reload && "
_IF_UDEV = " if the initramfs runs udev"


def _rules_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def rights(facts: Facts) -> Iterator[Finding]:
    """A user who can write the policy controls all devices; one who can write a hook runs commands as root."""
    for entry in facts.install.owned:
        if entry.uid != 0:
            yield bad(
                f"{entry.path} belongs to user {entry.uid}, who can thus assign devices", f"chown root {entry.path}"
            )
        if entry.mode & WRITABLE_BY_OTHERS:
            yield bad(f"{entry.path} can be written by users other than root", f"chmod go-w {entry.path}")
    for place, words in facts.install.unsafe:
        fact, _, remedy = words.partition("; ")
        yield bad(f"{place}, which a hook or xl depends on: {fact}", remedy.strip("`"))


def group(facts: Facts) -> Iterator[Finding]:
    """The agent does not start if the group of its socket does not exist."""
    if not facts.install.group:
        name = facts.settings.control.group
        yield bad(f"the control socket's group {name} does not exist", facts.system.make_group(name))


def room(facts: Facts) -> Iterator[Finding]:
    """The agent must be able to write its ledger and history."""
    for folder, free in facts.install.free.items():
        if free < 0:
            yield bad(f"{folder} is read-only", "mount it read-write: the agent's ledger and history are stored there")
        elif free < LEAST_FREE:
            yield bad(f"{folder} has {free} bytes left", "free some space: the agent's ledger and history are there")


def others(facts: Facts) -> Iterator[Finding]:
    """Two programs that move the same devices undo each other's actions."""
    for where, what in facts.others.items():
        yield warning(f"{where}: {what}", "remove it, or keep its devices out of the policy of xenplug")


CHECKS = (
    Check("root", "everything could be checked", root),
    Check("packages", "the Python packages are installed", packages),
    Check("policy", "the policy and the settings load", policy),
    Check("service", "the service starts at boot", unit),
    Check("agent", "the agent answers", agent),
    Check("udev-rules", "dom0's services ignore devices that are for guests", udev_rules),
    Check("rights", "only root can change the agent's policy, settings and programs", rights),
    Check("group", "the control socket's group exists", group),
    Check("room", "there is space for ledger and history", room),
    Check("others", "no other program moves USB devices", others),
)
