"""docs/dev/architecture.md names files and functions of the code: each must exist, and each walk must be short."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ROOT / "agent/xenplug"
PAGE = (ROOT / "docs/dev/architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)(?::([\w.]+))?`", PAGE)))
MOST_HOPS = 19


@cache
def defined(path: Path) -> frozenset[str]:
    """Functions, classes and methods ("Class.method") of a module."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return frozenset(names)


def hops(title: str) -> list[str]:
    """The numbered items of a section, each with the functions it names: "path:Class.function"."""
    [section] = re.findall(rf"^## {title}: .*?\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\d+\. `([^`]+)`: ", section, re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda value: value)
def test_what_the_page_names_exists(path: str, name: str) -> None:
    found = next((base / path for base in (CODE, ROOT) if (base / path).exists()), None)
    assert found, f"{path} does not exist"
    assert not name or name in defined(found), f"{path} has no {name}"


@pytest.mark.parametrize("title", ["A plug", "A pull"])
def test_a_walk_is_short_and_names_functions(title: str) -> None:
    walk = hops(title)
    assert 5 < len(walk) <= MOST_HOPS
    assert all(re.fullmatch(r"[a-z_/]+\.py:[\w.]+", hop) for hop in walk)


def test_every_package_is_on_the_map() -> None:
    packages = {str(path.parent.relative_to(CODE)) for path in CODE.glob("**/__init__.py")} - {".", "core"}
    assert packages <= set(re.findall(r"^\| `([a-z_/]+)` \|", PAGE, re.MULTILINE))


def test_every_module_outside_a_package_is_on_the_map() -> None:
    modules = {str(path.relative_to(CODE)) for path in [*CODE.glob("*.py"), *CODE.glob("core/*.py")]}
    assert {module for module in modules if "__" not in module} <= {path for path, _name in NAMED}
