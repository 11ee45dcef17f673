"""Write docs/policy-reference.md from the JSON Schema: `python -m tools.policy_reference`.

A test fails while the page is out of date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xenplug.core.documents.document import schema
from xenplug.core.documents.schema_errors import flow

PAGE = Path(__file__).parent.parent / "docs/policy-reference.md"
HEAD = """# Policy reference

Made from the JSON Schema by `python -m tools.policy_reference`; do not edit.
[policy.md](policy.md) teaches the language.

For completion and explanations in an editor: `xenplug schema policy > policy.schema.json`, and as first line of a file
`# yaml-language-server: $schema=policy.schema.json`.
"""
SECTIONS = {
    "rule": "A rule",
    "fallback": "`fallback`",
    "match": "Match keys",
    "guest": "A guest",
    "controller": "A guest controller",
}


def page() -> str:
    """The whole page."""
    policy = schema("policy")
    parts = [HEAD, *_section("Top level", policy)]
    for name, title in SECTIONS.items():
        if name in policy["$defs"]:
            parts += _section(title, policy["$defs"][name])
    return "\n".join(parts) + "\n"


def _section(title: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    if title != "Top level" and "description" in part:
        yield f"{part['description']}\n"
    yield "| key | means | examples |\n|---|---|---|"
    for key, told in part["properties"].items():
        needed = " (required)" if key in part.get("required", ()) else ""
        examples = "<br>".join(f"`{_cell(flow(example))}`" for example in told.get("examples", ()))
        yield f"| `{key}` | {_cell(told.get('description', ''))}{needed} | {examples} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
