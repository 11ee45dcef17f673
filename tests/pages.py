"""Pages of docs/ made from a schema. `python -m tests.pages` writes them anew; a test tells when they are old."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xenplug.core.reading.document import schema

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """\
# Settings

Made from the schema (`xenplug schema settings`); do not edit: `python -m tests.pages` writes it anew.

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


PAGES = {"settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
