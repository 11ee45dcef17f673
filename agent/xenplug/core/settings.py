"""The settings of /etc/xenplug/xenplug.yaml and their defaults.

The defaults are in the dataclasses here; core/schemas/settings.json describes the same keys for people and editors.
daemon and the commands read the file through `load`; `xenplug config` shows every value and where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any

from xenplug.core.documents.node import Node
from xenplug.core.documents.problems import Path, Problem, merge, shown
from xenplug.core.documents.report import Report
from xenplug.core.documents.units import count, duration, size

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ToolstackSettings:
    """How Xen's tools are called."""

    xl: str = "xl"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The control socket."""

    socket: str = "/run/xenplug/control.sock"
    owner: str = ""
    """The user who may act besides root; empty: the user the agent runs as."""
    group: str = "root"
    readers: str = "group"
    """group or all: who may read; acting is the owner's and the group's in any case."""


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The history file; `size` in bytes."""

    file: str = "/var/lib/xenplug/history.jsonl"
    size: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Hook:
    """A command and its events (core/reporting/hooks.EVENTS); no events: all of them."""

    run: tuple[str, ...]
    on: tuple[str, ...] = ()

    def fires(self, event: str) -> bool:
        """Whether the command runs on this event."""
        return not self.on or event in self.on


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Metrics for Prometheus."""

    file: str = ""
    """The textfile for node_exporter; empty: none is written."""


@dataclass(frozen=True, slots=True)
class TimeSettings:
    """Durations in seconds; `give_up` is a number of tries."""

    settle: float = 0.3
    """Pause after a re-enumeration before the device is decided; a first plug does not wait."""
    delivery: float = 10.0
    """Time from the attach until the guest must have taken the device."""
    backoff_first: float = 1.0
    backoff_max: float = 60.0
    give_up: int = 8
    """Tries."""
    xl: float = 60.0
    """How long one xl call may take."""
    reboot_grace: float = 5.0
    """How long the devices of a guest that vanished wait for it to come back."""
    no_frontend: float = 120.0
    """Age of a guest at which a controller that no frontend has connected to is reported."""
    rescan: float = 60.0
    hook: float = 10.0
    """How long one hook may run before it is killed."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of the system; changed in tests only."""

    sys: str = "/sys"
    proc: str = "/proc"
    dev: str = "/dev"
    xen_lib: str = "/var/lib/xen"
    xenstored: str = ""
    """xenstored's socket; empty: $XENSTORED_PATH, else /run/xenstored/socket."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, grouped as in the file."""

    on_stop: str = "keep"
    """keep or detach: what a stop of the agent does with its attachments."""
    hand_over: str = "driverless"
    """driverless or plain: whether dom0's drivers are kept off devices meant for guests."""
    state: str = "/run/xenplug"
    """The folder of ledger and claims; gone after a reboot of the host."""
    toolstack: ToolstackSettings = field(default_factory=ToolstackSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    hooks: tuple[Hook, ...] = ()
    """Commands that are run when a device's state changes."""
    times: TimeSettings = field(default_factory=TimeSettings)
    paths: Paths = field(default_factory=Paths)


Origins = Mapping[str, str]
"""By dotted key: `default`, or FILE:LINE."""


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, in the order in which they are declared."""
    return dict(_flat(settings, ""))


def _flat(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in fields(part):
        value = getattr(part, entry.name)
        if is_dataclass(value):
            yield from _flat(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def load(text: bytes | None, file: str) -> tuple[Settings, Origins, list[Problem]]:
    """The settings, the origin of each, and the problems. `text` None: there is no file. Never raises.

    A setting with a problem keeps its default; a caller that acts on the host must not continue if there are problems.
    """
    origins = dict.fromkeys(flat(Settings()), DEFAULT)
    if text is None:
        return Settings(), MappingProxyType(origins), []
    from xenplug.core.documents.document import parse, schema, validate  # here: without a file a command needs no YAML

    node, problems = parse(text, file)
    if node is None:
        return Settings(), MappingProxyType(origins), problems
    report = Report(file)
    settings = _read(node, report, origins)
    problems = merge(problems, report.problems, validate(node, schema("settings"), file))
    return settings, MappingProxyType(origins), problems


def _read(node: Node, report: Report, origins: dict[str, str]) -> Settings:
    settings = Settings()
    for key, value in list(_leaves(node)):
        if key not in SETTING_READERS or value.text is None:
            continue
        try:
            settings = _with(settings, key, SETTING_READERS[key](value.text))
            origins[key] = f"{report.file}:{value.line}"
        except ValueError as error:
            report.add(value.position, key.split("."), str(error))
    if "hooks" in node.mapping:
        hooks = [_hook(entry, ["hooks", number], report) for number, entry in enumerate(node.mapping["hooks"].items)]
        settings = replace(settings, hooks=tuple(hook for hook in hooks if hook))
        origins["hooks"] = f"{report.file}:{node.mapping['hooks'].line}"
    times = settings.times
    if times.backoff_max < times.backoff_first:
        at = node.mapping["times"]
        key = "backoff_max" if "backoff_max" in at.mapping else "backoff_first"
        report.add(
            at.mapping[key].position,
            ["times", key],
            f"backoff_max ({times.backoff_max:g}s) is shorter than backoff_first ({times.backoff_first:g}s); "
            "make it at least as long",
        )
    return settings


def _hook(node: Node, path: Path, report: Report) -> Hook | None:
    """One hook; the schema reports entries that do not have its form."""
    words, events = node.mapping.get("run"), node.mapping.get("on")
    argv = tuple(item.text for item in words.items if item.text is not None) if words else ()
    on = tuple(item.text for item in events.one_or_more if item.text is not None) if events else ()
    if words is None or not argv:
        return None
    if not argv[0].startswith("/"):
        text = f"{shown(argv[0])} is not an absolute path; write the full path, like /usr/local/bin/notice"
        report.add(words.items[0].position, [*path, "run", 0], text)
    if any("\0" in word for word in argv):
        report.add(
            words.position, [*path, "run"], "a word contains a NUL character, which no program can get; remove it"
        )
    return Hook(argv, on)


def _leaves(node: Node) -> Iterator[tuple[str, Node]]:
    for key, value in node.mapping.items():
        yield key, value
        for inner, leaf in value.mapping.items():
            yield f"{key}.{inner}", leaf


def _with(settings: Settings, key: str, value: object) -> Settings:
    group, _, name = key.rpartition(".")
    if not group:
        return replace(settings, **{name: value})  # type: ignore[arg-type]  # SETTING_READERS make the right type
    return replace(settings, **{group: replace(getattr(settings, group), **{name: value})})


def _positive(read_: Callable[[str], float]) -> Callable[[str], float]:
    def checked(text: str) -> float:
        value = read_(text)
        if not value:
            raise ValueError(f"{text!r} is zero; write more than 0")
        return value

    return checked


def _absolute(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError(f"{shown(text)} is not an absolute path; start it with /, like /run/xenplug")
    return text


def _program(text: str) -> str:
    if not text or not text.isprintable() or ("/" in text and not text.startswith("/")):
        raise ValueError(f"{shown(text)} is not a program; write its name, like xl, or its absolute path")
    return text


def _group(text: str) -> str:
    if not text or not text.isprintable() or " " in text or _too_big(text):
        raise ValueError(f"{shown(text)} is not a group; write a name from /etc/group, or a number")
    return text


def _user(text: str) -> str:
    if (text and not text.isprintable()) or " " in text or _too_big(text):
        raise ValueError(f"{shown(text)} is not a user; write a name from /etc/passwd, or a number")
    return text


def _too_big(text: str) -> bool:
    """Whether it is a number that no user or group can have: ids have 32 bits, and -1 means none (chown(2))."""
    return text.isascii() and text.isdigit() and (len(text) > 10 or int(text) >= (1 << 32) - 1)


def _readers(text: str) -> str:
    if text not in ("group", "all"):
        raise ValueError(f"{shown(text)} is not known here; write group or all")
    return text


def _on_stop(text: str) -> str:
    if text not in ("keep", "detach"):
        raise ValueError(f"{shown(text)} is not known here; write keep or detach")
    return text


def _hand_over(text: str) -> str:
    if text not in ("driverless", "plain"):
        raise ValueError(f"{shown(text)} is not known here; write driverless or plain")
    return text


SETTING_READERS: Mapping[str, Callable[[str], object]] = {
    "on_stop": _on_stop,
    "hand_over": _hand_over,
    "state": _absolute,
    "toolstack.xl": _program,
    "control.socket": _absolute,
    "control.owner": _user,
    "control.group": _group,
    "control.readers": _readers,
    "history.file": _absolute,
    "history.size": _positive(size),
    "metrics.file": lambda text: text and _absolute(text),
    "times.settle": duration,
    "times.delivery": _positive(duration),
    "times.backoff_first": _positive(duration),
    "times.backoff_max": _positive(duration),
    "times.give_up": _positive(count),
    "times.xl": _positive(duration),
    "times.reboot_grace": duration,
    "times.no_frontend": duration,
    "times.rescan": _positive(duration),
    "times.hook": _positive(duration),
    "paths.sys": _absolute,
    "paths.proc": _absolute,
    "paths.dev": _absolute,
    "paths.xen_lib": _absolute,
    "paths.xenstored": lambda text: text and _absolute(text),
}
"""The reader of each single value; `hooks`, a list, has its own."""
