"""Pages of docs/ that are made from a schema or from code. `python -m tools.reference_pages` writes them again; a test
fails while they are out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xenplug.core.doctor import configs, host, running, toolstack, usbctrl, usbhost
from xenplug.core.documents.document import schema

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """\
# Settings

Made from the schema (`xenplug schema settings`); do not edit: `python -m tools.reference_pages` writes it anew.

`/etc/xenplug/xenplug.yaml` says how the agent runs on this host. There need not be one: every setting has a default.
It is read as strictly as a policy; a mistake is told at file, line and column, and the agent does not start over
half-read settings, nor over a file that others than root may change: it names hooks. `xenplug config` shows every
setting with its value and where it comes from. Changes take effect with `systemctl restart xenplug`; attached devices
stay attached meanwhile.

```yaml
version: 1                     # required
times: {delivery: 20s}
control: {group: xenplug}      # who may attach and detach by hand
hooks:
  - run: [/usr/local/bin/usb-notice]
    on: [attached, given_up]
```
"""


def settings_page() -> str:
    """docs/settings.md."""
    return HEAD + "".join(_group(schema("settings")["properties"]))


def _group(properties: dict[str, Any]) -> Iterator[str]:
    single = {key: inner for key, inner in properties.items() if "properties" not in inner and key != "version"}
    yield "\n| setting | default | |\n|---|---|---|\n"
    yield from (_row(key, inner) for key, inner in single.items())
    for key, inner in properties.items():
        if "properties" not in inner:
            continue
        yield f"\n## {key}\n\n{inner['description']}\n\n| setting | default | |\n|---|---|---|\n"
        yield from (_row(f"{key}.{name}", part) for name, part in inner["properties"].items())
    yield "\n## hooks\n\nA list; each entry has\n\n| key | |\n|---|---|\n"
    for key, inner in properties["hooks"]["items"]["properties"].items():
        yield f"| `{key}` | {inner['description']} |\n"


def _row(key: str, inner: dict[str, Any]) -> str:
    default = inner["default"]
    shown = "none" if default in ("", []) else f"`{default}`"
    choice = f" One of {', '.join(f'`{word}`' for word in inner['enum'])}." if "enum" in inner else ""
    return f"| `{key}` | {shown} | {inner['description']}{choice} |\n"


DOCTOR = """\
# What the doctor checks

Made from the checks themselves; do not edit: `python -m tools.reference_pages` writes it anew.

`xenplug doctor` looks for everything that is known to go wrong on a Xen host and that a host can be checked for, and
tells the remedy with each thing it finds. It touches nothing. Run it as root: what an ordinary user may not see is said
to be unknown. `--all` lists what is good too, `--json` is for programs, `--root DIR` looks at another system's files.
It exits with 1 if something is bad; warnings alone are 0.

The names below stand in brackets behind each finding. Where a fact is from (T and a number):
[xen-facts.md](xen-facts.md).
"""
REST = """
## What it cannot see

Some traps are in what a person or a program does, and leave nothing that could be looked at beforehand: leading zeros
that make an address octal, hex in `usb-list`, numbers xl cuts to eight bits, exit code 0 of a call that failed, words
it takes for controller 0, two calls at a time, a domid that is another guest's by now. The agent avoids them, and the
check `others` finds scripts and rules that run xl for USB. Whether a guest's kernel has the PVUSB driver shows only
once it runs (`frontend`), and what firmware reserves of a host controller (RMRR) only once Xen refuses it.
"""
ROOMS = (
    ("Xen and its tools", toolstack.CHECKS),
    ("The guests' configurations", (*configs.CHECKS, *usbctrl.CHECKS)),
    ("The guests that run", running.CHECKS),
    ("dom0's USB side", usbhost.CHECKS),
    ("dom0 and xenplug's own parts", host.CHECKS),
)


def doctor_page() -> str:
    """docs/doctor.md."""
    parts = [DOCTOR]
    for title, checks in ROOMS:
        parts.append(f"\n## {title}\n\n| check | good is | because |\n|---|---|---|\n")
        parts += [f"| `{check.name}` | {check.title} | {check.look.__doc__} |\n" for check in checks]
    return "".join([*parts, REST])


PAGES = {"settings.md": settings_page, "doctor.md": doctor_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
