"""The rules of the code base, kept by tests: which package imports which, sizes, what is never there.

The layers of CONTRIBUTING.md stand here as one table, PACKAGES; everything else is read from the files themselves.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "agent"
MODULES = sorted((SOURCE / "xenplug").rglob("*.py"))
TESTS = [path for top in ("tests", "benchmarks", "tools") for path in sorted((ROOT / top).rglob("*.py"))]
PYTHON = [*MODULES, *TESTS]

PACKAGES: Mapping[str, str] = {
    # core, low to high. It does no I/O; everything above may import any of it ("core").
    "core": "",
    "core.model": "",
    "core.host_system": "",
    "core.documents": "",
    "core.printable": "",
    "core.protocols": "core.model",
    "core.guests": "core.model core.printable",
    "core.settings": "core.documents",
    "core.usb": "core.model core.printable",
    # guests: how many ports a guest controller may have.
    "core.policy": "core.model core.documents core.guests core.usb",
    # usb: an older record of a device is judged again, whether it is a hub.
    "core.ledger": "core.model core.usb",
    # lint reports its findings as problems with a place in the policy's text, hence documents.
    # usb: kinds and hubs, for the parts of a device that a rule is tried on.
    "core.matching": "core.model core.documents core.policy core.usb",
    "core.planning": "core.model core.protocols core.usb core.policy core.ledger core.matching",
    "core.reporting": "core.model core.printable core.policy core.ledger core.matching core.planning",
    # planning: `xenplug xl-cfg` writes what the planner would choose (fit, protection).
    "core.interop": "core.model core.documents core.printable core.usb core.policy core.ledger core.matching "
    "core.planning",
    # interop: the doctor reads the guests' xl.cfg files with the same parser. matching, planning (and the empty ledger
    # that it needs): which devices the policy attaches to guests.
    "core.doctor": "core.model core.printable core.guests core.host_system core.settings core.policy core.ledger "
    "core.matching core.planning core.interop",
    # The real host and the simulated one stand behind the same protocols: neither may import the other.
    "adapters": "core xenplug",
    "simulator": "core",
    # The engine names Xl and Mirror of the adapters: both work over protocols, on the simulated host too.
    "engine": "core adapters",
    "service": "core adapters engine xenplug",
    # The simulated floor runs the real agent (service) on the simulated host; of adapters only varlink's errors.
    "scenario": "core adapters service simulator",
    # Above the service: it wraps the backends and the change sink that the service is put together from.
    "hooks_and_metrics": "core adapters engine service",
    # scenario: `xenplug run --toolstack simulated`.
    "daemon": "core adapters engine service scenario hooks_and_metrics xenplug",
    # Never the engine: a command asks the running agent, or uses the core.
    "cli": "core adapters service scenario daemon xenplug",
    "__main__": "cli",
    # xenplug/__init__.py holds the version only.
    "xenplug": "",
}
"""By package: what it may import besides itself. A module directly under core/ or xenplug/ counts as a package."""

IMPURE = {"asyncio", "logging", "subprocess", "socket", "os", "time", "pathlib", "threading", "random", "io", "shutil"}
"""What the core may not import: no I/O, no clock, no randomness."""

ONLY_IMPORTERS: Mapping[str, str] = {
    # Processes are started with asyncio, so that the loop goes on meanwhile.
    "subprocess": "",
    "pyudev": "adapters/udev.py",
    "yaml": "core/documents/document.py",
    "jsonschema": "core/documents/document.py",
    "socket": "adapters/client.py adapters/control.py adapters/control_socket.py adapters/notify.py adapters/udev.py "
    "adapters/xenstore.py",
    # Common packages that no file may import: the dependencies are Debian's python3-pyudev, -yaml and -jsonschema.
    "click": "",
    "requests": "",
}
"""By module of the standard library or of a third party: the only files that import it."""

UNFINISHED = ("TODO", "FIXME", "XXX")
OLD_WORDS = re.compile(
    r"\b(?:(?i:faces|teller|chronicle|wishes|hopeful|mend|mends|mended|anew)|Outside|Beside|Turns)\b"
)
"""Words that the code base once had for itself, and archaic ones. Outside, Beside and Turns were classes."""
TEXTS = {".py", ".md", ".yaml", ".json", ".txt", ".varlink", ".c", ".sh", ".toml", ".cfg"}

LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 50, 5


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


BY_NAME = {module_name(path): path for path in MODULES}


def package_of(name: str) -> str:
    """The key of PACKAGES that a module belongs to."""
    parts = name.split(".")[1:]
    if not parts:
        return "xenplug"
    return ".".join(parts[:2]) if parts[0] == "core" else parts[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, wherever in it; of ours, always a module's name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not (node.level and path in MODULES), f"{shown(path)}:{node.lineno}: imports are written in full"
            name = node.module or ""
            inner = [f"{name}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, full if full in BY_NAME else name) for full in inner)


@cache
def module_graph() -> Mapping[str, Mapping[str, int]]:
    """By module of ours: the modules of ours that it imports, each with the line."""
    return {
        name: {other: line for line, other in imported(path) if other in BY_NAME and other != name}
        for name, path in BY_NAME.items()
    }


def package_graph() -> Mapping[str, set[str]]:
    graph: dict[str, set[str]] = {package: set() for package in map(package_of, BY_NAME)}
    for name, others in module_graph().items():
        graph[package_of(name)] |= {package_of(other) for other in others} - {package_of(name)}
    return graph


def in_a_circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that import each other in a circle, or need one that does; [] if the graph can be put in order."""
    done: set[str] = set()
    while ready := [name for name in graph if name not in done and set(graph[name]) <= done]:
        done.update(ready)
    return sorted(set(graph) - done)


def allowed(package: str) -> set[str]:
    """What a package may import; "core" stands for all of core's."""
    named = set(PACKAGES[package].split())
    return named | {name for name in PACKAGES if name.startswith("core.")} if "core" in named else named


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_package_is_in_the_table_and_every_entry_exists():
    assert set(package_graph()) == set(PACKAGES)


def test_imports_follow_the_table():
    wrong = [
        f"{shown(BY_NAME[name])}:{line}: imports {other}"
        for name, others in module_graph().items()
        for other, line in others.items()
        if package_of(other) not in {package_of(name), *allowed(package_of(name))}
    ]
    assert wrong == []


def test_no_entry_of_the_table_is_unused():
    """An import that is allowed and not there would let the next one pass unseen."""
    unused = []
    for package, imports in package_graph().items():
        used = {"core" if "core" in PACKAGES[package].split() and n.startswith("core.") else n for n in imports}
        unused += [f"{package}: {name}" for name in PACKAGES[package].split() if name not in used]
    assert unused == []


def test_no_packages_import_each_other_in_a_circle():
    assert in_a_circle(package_graph()) == []


def test_no_modules_import_each_other_in_a_circle():
    assert in_a_circle(module_graph()) == []


def test_a_circle_is_found():
    assert in_a_circle({"a": ["b"], "b": ["c"], "c": ["b"], "d": []}) == ["a", "b", "c"]


def test_the_core_is_pure():
    wrong = []
    for path in (p for p in MODULES if module_name(p).startswith("xenplug.core")):
        wrong += [f"{shown(path)}:{n}: {name}" for n, name in imported(path) if name.partition(".")[0] in IMPURE]
        calls = (node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call))
        wrong += [f"{shown(path)}: open()" for f in calls if isinstance(f, ast.Name) and f.id in ("open", "print")]
    assert wrong == []


@pytest.mark.parametrize("name", ONLY_IMPORTERS)
def test_only_these_files_import(name):
    users = {p for p in MODULES if any(other.partition(".")[0] == name for _, other in imported(p))}
    assert {str(p.relative_to(SOURCE / "xenplug")) for p in users} == set(ONLY_IMPORTERS[name].split())


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


def test_every_module_has_a_docstring():
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


def test_no_old_words():
    wrong = []
    for path in texts():
        # Some of the tests' data is broken text on purpose.
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            wrong += [f"{shown(path)}:{number}: {found[0]}" for found in OLD_WORDS.finditer(line)]
    assert wrong == []


def texts() -> Iterator[Path]:
    """What people read: the code, the tests, the documents; not what pip left there (xenplug.egg-info)."""
    everything = [path for top in ("agent", "tests", "docs") for path in (ROOT / top).rglob("*")]
    found = [path for path in everything if path.suffix in TEXTS and not path.parent.name.endswith(".egg-info")]
    yield from sorted(path for path in [*found, *ROOT.glob("*.md")] if path != Path(__file__))


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """Names with an underscore that a file takes from elsewhere: attributes of others, and imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield node.lineno, f"{ast.unparse(node.value)}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, a.name) for a in node.names if a.name.startswith("_") and a.name[1:2] != "_")


def test_tests_use_no_private_names():
    """A test that needs one shows that a public method or a parameter is missing."""
    public = {"os._exit"}  # Python's own name for it
    wrong = [f"{shown(p)}:{n}: {name}" for p in TESTS for n, name in private_names(p) if name not in public]
    assert wrong == []


def test_importing_the_core_imports_no_io():
    """What decides over a device needs neither an event loop nor a socket."""
    code = (
        "import sys\n"
        "import xenplug.core.planning.plan, xenplug.core.reporting.views, xenplug.core.ledger.serialize\n"
        "print(*sorted({'asyncio', 'socket', 'subprocess', 'yaml', 'pyudev', 'logging'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE, check=True)
    assert done.stdout.split() == []
