"""The rules of the house, kept by a test: who may import whom, how long things may be, what is never there."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "agent"
MODULES = sorted((SOURCE / "xenplug").rglob("*.py"))
PYTHON = [path for top in ("agent", "tests", "benchmarks", "dev") for path in sorted((ROOT / top).rglob("*.py"))]

ROOMS = {"core", "shell", "sim", "cli"}
TOP = {"cli", "daemon", "beside", "stage", "simulated", "assembly", "__main__"}
"""What puts the rooms together; nothing below may know of it."""
MIDDLE = {"acts", "chronicle", "controllers", "observer", "outside", "pciacts", "policies", "reconciler", "service"}
MIDDLE |= {"guestcontrolleracts"}
MIDDLE |= {"teller"}
ALLOWED: dict[str, set[str]] = {
    "core": {"core"},
    "shell": {"shell", "core", ""},
    "sim": {"sim", "core"},
    "outside": {"shell", "core"},
    "pciacts": {"outside", "shell", "core"},
    "guestcontrolleracts": {"outside", "pciacts", "shell", "core"},
    "acts": {"outside", "guestcontrolleracts", "pciacts", "shell", "core"},
    "policies": {"shell", "core"},
    "observer": {"outside", "core"},
    "teller": {"core"},
    "reconciler": {"acts", "observer", "outside", "teller", "shell", "core"},
    "chronicle": {"shell", "core"},
    "controllers": {"reconciler", "shell", "core"},
    "service": {"chronicle", "controllers", "reconciler", "policies", "shell", "core", ""},
    "assembly": {"chronicle", "outside", "policies", "reconciler", "service", "teller", "shell", "core"},
    "stage": {"assembly", "chronicle", "policies", "sim", "shell", "core"},
    "beside": {"assembly", "teller", "shell", "core"},
    "simulated": {"assembly", "stage", "sim", "core"},
    "daemon": {"assembly", "beside", "chronicle", "outside", "policies", "reconciler", "service", "simulated"}
    | {"shell", "sim", "core", ""},
    "cli": {"cli", "daemon", "stage", "simulated", "policies", "shell", "sim", "core", ""},
    "__main__": {"cli"},
    "": set(),
}
"""By room or top module: what it may import. "" is the package itself (its version)."""

IMPURE = {"asyncio", "logging", "subprocess", "socket", "os", "time", "pathlib", "threading", "random", "io", "shutil"}
"""What the core may not import: no I/O, no clock, no chance."""
DOORS = {
    "subprocess": {"adapters/proc.py"},
    "pyudev": {"adapters/udev.py"},
    "yaml": {"core/documents/document.py"},
    "jsonschema": {"core/documents/document.py"},
    "socket": {
        "adapters/client.py",
        "adapters/control.py",
        "adapters/control_socket.py",
        "adapters/notify.py",
        "adapters/udev.py",
    }
    | {"adapters/xenstore.py"},
    "click": set(),
    "requests": set(),
}
"""Third parties and outside worlds have one door each."""

UNFINISHED = ("TODO", "FIXME", "XXX")
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 5


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    parts = path.relative_to(SOURCE / "xenplug").with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not (node.level and path in MODULES), f"{shown(path)}:{node.lineno}: imports are written in full"
            name = node.module or ""
            yield node.lineno, name
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names if name == "xenplug")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_imports_go_down():
    wrong = []
    for path in MODULES:
        for line, name in imported(path):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            top = target if target in ROOMS | MIDDLE | TOP else ""
            if package == "xenplug" and rest and top not in ALLOWED[room(path)]:
                wrong.append(f"{shown(path)}:{line}: imports {name}")
    assert wrong == []


def test_every_room_is_known():
    assert {room(path) for path in MODULES} == set(ALLOWED)
    assert ROOMS | MIDDLE | TOP | {""} == set(ALLOWED)
    for below in ("core", "shell", "sim"):
        assert not ALLOWED[below] & (MIDDLE | TOP)
    assert "shell" not in ALLOWED["sim"] and "sim" not in ALLOWED["shell"]


def test_no_module_imports_in_a_circle():
    names = {".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in MODULES}
    graph = {name: {n for _, n in imported(path) if n in names} for name, path in names.items()}
    done: set[str] = set()
    while ready := [name for name in graph if name not in done and graph[name] <= done]:
        done.update(ready)
    assert sorted(set(graph) - done) == []


def test_the_core_is_pure():
    wrong = []
    for path in (p for p in MODULES if room(p) == "core"):
        wrong += [f"{shown(path)}:{n}: {name}" for n, name in imported(path) if name.partition(".")[0] in IMPURE]
        calls = (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
        wrong += [f"{shown(path)}: open()" for f in calls if isinstance(f, ast.Name) and f.id in ("open", "print")]
    assert wrong == []


@pytest.mark.parametrize("door", DOORS)
def test_one_door_each(door):
    users = {p for p in MODULES if any(name.partition(".")[0] == door for _, name in imported(p))}
    assert {str(p.relative_to(SOURCE / "xenplug")) for p in users} <= DOORS[door]


def test_budgets():
    wrong = []
    for path in PYTHON:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            wrong.append(f"{shown(path)}: {lines} lines")
        for found in functions(path):
            length = (found.end_lineno or found.lineno) - found.lineno + 1
            if length > LONGEST_FUNCTION:
                wrong.append(f"{shown(path)}:{found.lineno}: {found.name} has {length} lines")
    assert wrong == []


def test_few_parameters():
    wrong = []
    for path in MODULES:
        for found in functions(path):
            names = [a.arg for a in found.args.posonlyargs + found.args.args + found.args.kwonlyargs]
            if len([name for name in names if name not in ("self", "cls")]) > MOST_PARAMETERS:
                wrong.append(f"{shown(path)}:{found.lineno}: {found.name}")
    assert wrong == []


def test_every_module_tells_its_place():
    texts = {path: path.read_text(encoding="utf-8").strip() for path in PYTHON}
    assert [shown(path) for path, text in texts.items() if text and not ast.get_docstring(tree(path))] == []


def test_what_is_never_there():
    wrong = []
    for path in PYTHON:
        text = path.read_text(encoding="utf-8")
        wrong += [f"{shown(path)}: {word}" for word in UNFINISHED if word in text and path != Path(__file__)]
        names = {name for _, name in imported(path)}
        wrong += [f"{shown(path)}: {n}" for n in names if "mock" in n or n.partition(".")[0] == "unittest"]
    assert wrong == [], "finish it; fakes, the simulator and recorded output instead of mocks"


def test_the_core_drags_nothing_in():
    """The judgement of a device needs neither an event loop nor a socket."""
    code = (
        "import sys\n"
        "import xenplug.core.planning.plan, xenplug.core.reporting.views, xenplug.core.ledger.serialize\n"
        "print(*sorted({'asyncio', 'socket', 'subprocess', 'yaml', 'pyudev', 'logging'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, check=True)
    assert done.stdout.split() == []
