"""Generated pages of docs/reference: from the JSON Schemas and the doctor's checks to Markdown.

`python -m tools.reference_pages` writes them. A test fails when a page differs from its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xenplug.core.doctor import configs, host, running, toolstack, usbctrl, usbhost
from xenplug.core.documents.document import schema
from xenplug.core.documents.schema_errors import flow

DOCS = Path(__file__).parents[1] / "docs/reference"

SETTINGS = """\
# Settings

This page is generated from the schema (`xenplug schema settings`). Do not edit it: run
`python -m tools.reference_pages`.

`/etc/xenplug/xenplug.yaml` configures the agent of this host. The file is optional: every setting has a default.
It is read as strictly as a policy. Every error is reported with file, line and column, and the agent does not start
with settings that have an error. It also refuses a settings file that users other than root can change, because the
file names commands to run (hooks). `xenplug config` shows every setting with its value and where the value comes from.
Changes take effect with `systemctl restart xenplug`; attached devices stay attached during the restart.

```yaml
version: 1                     # required
times: {delivery: 20s}
control: {group: xenplug}      # who may attach and detach devices
hooks:
  - run: [/usr/local/bin/usb-notice]
    on: [attached, given_up]
```
"""


def settings_page() -> str:
    """docs/reference/settings.md: every setting with its default."""
    return SETTINGS + "".join(_settings(schema("settings")["properties"]))


def _settings(properties: dict[str, Any]) -> Iterator[str]:
    single = {key: inner for key, inner in properties.items() if "properties" not in inner and key != "version"}
    yield "\n| setting | default | meaning |\n|---|---|---|\n"
    yield from (_setting(key, inner) for key, inner in single.items())
    for key, inner in properties.items():
        if "properties" not in inner:
            continue
        yield f"\n## {key}\n\n{inner['description']}\n\n| setting | default | meaning |\n|---|---|---|\n"
        yield from (_setting(f"{key}.{name}", part) for name, part in inner["properties"].items())
    yield "\n## hooks\n\nA list. Each entry has these keys:\n\n| key | meaning |\n|---|---|\n"
    for key, inner in properties["hooks"]["items"]["properties"].items():
        yield f"| `{key}` | {inner['description']} |\n"


def _setting(key: str, inner: dict[str, Any]) -> str:
    default = inner["default"]
    shown = "none" if default in ("", []) else f"`{default}`"
    choice = f" One of {', '.join(f'`{word}`' for word in inner['enum'])}." if "enum" in inner else ""
    return f"| `{key}` | {shown} | {inner['description']}{choice} |\n"


DOCTOR = """\
# Doctor checks

This page is generated from the checks in `core/doctor`. Do not edit it: run `python -m tools.reference_pages`.

`xenplug doctor` checks a host for every known Xen USB problem that a host can be checked for, and prints a remedy with
each finding. It changes nothing. Run it as root: what an ordinary user cannot read is reported as unknown. `--all`
also lists the checks that pass, `--json` is for programs, `--root DIR` checks the files of another system. The exit
code is 1 if a check fails; warnings alone exit with 0.

Each finding ends with the name of its check in brackets. T-numbers refer to [xen-facts.md](xen-facts.md#traps).
"""
DOCTOR_LIMITS = """
## What the doctor cannot see

Some problems are in the commands of a person or a program and leave no trace that can be checked in advance: leading
zeros that make an address octal, hexadecimal numbers in `usb-list`, numbers that xl truncates to eight bits, exit code
0 of a call that failed, words that xl reads as controller 0, two concurrent calls, a domid that now belongs to another
guest. The agent avoids all of these, and the check `others` finds scripts and udev rules that run xl for USB. Whether
a guest's kernel has the PVUSB driver is visible only while the guest runs (check `frontend`). Memory that the firmware
reserves for a host controller (RMRR) is visible only when Xen refuses the controller.
"""
DOCTOR_GROUPS = (
    ("Xen and its tools", toolstack.CHECKS),
    ("Guest configurations", (*configs.CHECKS, *usbctrl.CHECKS)),
    ("Running guests", running.CHECKS),
    ("USB in dom0", usbhost.CHECKS),
    ("dom0 and xenplug itself", host.CHECKS),
)


def doctor_page() -> str:
    """docs/reference/doctor-checks.md: every check, when it passes and why it exists."""
    parts = [DOCTOR]
    for title, checks in DOCTOR_GROUPS:
        parts.append(f"\n## {title}\n\n| check | passes when | reason |\n|---|---|---|\n")
        parts += [f"| `{check.name}` | {check.title} | {check.look.__doc__} |\n" for check in checks]
    return "".join([*parts, DOCTOR_LIMITS])


POLICY = """\
# Policy keys

This page is generated from the schema (`xenplug schema policy`). Do not edit it: run
`python -m tools.reference_pages`. [The policy page](../user/policy.md) explains the language with examples.

For completion and explanations in an editor, run `xenplug schema policy > policy.schema.json` and put this comment in
the first line of the policy: `# yaml-language-server: $schema=policy.schema.json`.

## How files are read

- All `*.yaml` files of `/etc/xenplug/policies.d` are read in the order of their names (C locale) and count as one
  policy. Rules are concatenated. `--policy PATH` names another file or folder.
- Rule names are unique over all files. A rule without a name is called FILE:LINE.
- `protect` lists of several files are joined. The same guest, `label`, `default` or `auto_protect` in two files
  is an error.
- Every value is the text that was typed. `1.10` is bus 1, device 10; `0123:4567`, `10:20` and `on` are never numbers,
  times or booleans; `001.006` means `1.6`. Case does not matter in hex numbers, and `0x` is allowed. `"*:*"` needs
  quotes, because an unquoted `*` starts a YAML alias.
- An unknown key, a duplicate key, an empty match and a missing `version` are errors. So is a guest name
  that xl would misread: only digits, a leading `-`, `/`, control characters, too long, Domain-0.
- Every error has the form `FILE:LINE:COLUMN: PATH: fact; remedy`, and all errors are reported together. A policy with
  an error is not used: at the start the agent attaches nothing, after a reload the last good policy stays in force.

## What wins

From strongest to weakest: protected, paused, manual override (`xenplug attach`, `xenplug detach`), foreign (attached by
someone else with xl), the first rule that matches, a rule inherited by `follow`, `default`. `follow` replaces only
`default`, never another rule. A protected device belongs to the host and is authorised, even under `default: block`.
"""
POLICY_PARTS = {
    "rule": "A rule",
    "fallback": "`fallback`",
    "match": "Match keys",
    "guest": "A guest",
    "controller": "A guest controller",
}


def policy_page() -> str:
    """docs/reference/policy-keys.md: every key of a policy with its meaning and examples."""
    policy = schema("policy")
    parts = [POLICY, *_policy_part("Top level", policy)]
    for name, title in POLICY_PARTS.items():
        if name in policy["$defs"]:
            parts += _policy_part(title, policy["$defs"][name])
    return "\n".join(parts)


def _policy_part(title: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    if title != "Top level" and "description" in part:
        yield f"{part['description']}\n"
    yield "| key | meaning | examples |\n|---|---|---|"
    for key, inner in part["properties"].items():
        required = " (required)" if key in part.get("required", ()) else ""
        examples = "<br>".join(f"`{_cell(flow(example))}`" for example in inner.get("examples", ()))
        yield f"| `{key}` | {_cell(inner.get('description', ''))}{required} | {examples} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"settings.md": settings_page, "doctor-checks.md": doctor_page, "policy-keys.md": policy_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
