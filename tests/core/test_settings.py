"""The settings file: defaults, reading, origins, refusals."""

import pytest

from xenplug.core import settings as module
from xenplug.core.documents.document import schema
from xenplug.core.documents.units import count, duration, size
from xenplug.core.reporting.hooks import EVENTS
from xenplug.core.settings import SETTING_READERS, Hook, Settings, flat, load

DEFAULTS = {
    "on_stop": "keep",
    "hand_over": "driverless",
    "state": "/run/xenplug",
    "toolstack.xl": "xl",
    "control.socket": "/run/xenplug/control.sock",
    "control.owner": "",
    "control.group": "root",
    "control.readers": "group",
    "history.file": "/var/lib/xenplug/history.jsonl",
    "history.size": 1024 * 1024,
    "metrics.file": "",
    "hooks": (),
    "times.settle": 0.3,
    "times.delivery": 10.0,
    "times.backoff_first": 1.0,
    "times.backoff_max": 60.0,
    "times.give_up": 8,
    "times.xl": 60.0,
    "times.reboot_grace": 5.0,
    "times.no_frontend": 120.0,
    "times.rescan": 60.0,
    "times.hook": 10.0,
    "paths.sys": "/sys",
    "paths.proc": "/proc",
    "paths.dev": "/dev",
    "paths.xen_lib": "/var/lib/xen",
    "paths.xenstored": "",
}


def messages(text):
    return [str(problem) for problem in load(text.encode(), "f")[2]]


def test_every_default():
    assert flat(Settings()) == DEFAULTS


def described(part, prefix=""):
    for key, inner in part["properties"].items():
        if "properties" in inner:
            yield from described(inner, f"{key}.")
        elif key != "version":
            yield prefix + key, inner


def test_the_schema_describes_every_setting_and_its_default():
    keys = dict(described(schema("settings")))
    assert keys.keys() == DEFAULTS.keys() == SETTING_READERS.keys() | {"hooks"}
    assert {key: SETTING_READERS[key](str(inner["default"])) for key, inner in keys.items() if key != "hooks"} == {
        key: value for key, value in DEFAULTS.items() if key != "hooks"
    }
    assert keys["hooks"]["default"] == []


def test_no_file_is_all_defaults():
    settings, origins, problems = load(None, "f")
    assert (settings, problems) == (Settings(), [])
    assert dict(origins) == dict.fromkeys(DEFAULTS, "default")


def test_values_and_where_they_come_from():
    text = "version: 1\non_stop: detach\ntimes:\n  delivery: 1m\n  xl: 500ms\nhistory: {size: 4 MiB}\n"
    settings, origins, problems = load(text.encode(), "x.yaml")
    assert problems == []
    assert (settings.on_stop, settings.times.delivery, settings.times.xl) == ("detach", 60.0, 0.5)
    assert settings.history.size == 4 << 20
    assert settings.times.rescan == 60.0
    assert {key: origin for key, origin in origins.items() if origin != "default"} == {
        "on_stop": "x.yaml:2",
        "times.delivery": "x.yaml:4",
        "times.xl": "x.yaml:5",
        "history.size": "x.yaml:6",
    }


@pytest.mark.parametrize("key", [key for key in DEFAULTS if key != "hooks"])
def test_every_setting_can_be_set_to_its_default(key):
    inner = dict(described(schema("settings")))[key]
    group, _, name = key.rpartition(".")
    value = f'{{{name}: "{inner["default"]}"}}'
    text = f"version: 1\n{group}: {value}\n" if group else f"version: 1\n{value[1:-1]}\n"
    settings, origins, problems = load(text.encode(), "f")
    assert (settings, origins[key], problems) == (Settings(), "f:2", [])


HOOKS = """\
version: 1
hooks:
  - run: [/bin/notice, "-q", 1.10]
    on: [attached, given_up]
  - {run: [/bin/all]}
"""


def test_hooks():
    settings, origins, problems = load(HOOKS.encode(), "f")
    assert problems == []
    assert settings.hooks == (Hook(("/bin/notice", "-q", "1.10"), ("attached", "given_up")), Hook(("/bin/all",)))
    assert origins["hooks"] == "f:3"
    assert [hook.fires("unplugged") for hook in settings.hooks] == [False, True]


def test_hooks_may_wait_for_every_state():
    hook = schema("settings")["properties"]["hooks"]["items"]
    assert tuple(hook["properties"]["on"]["items"]["enum"]) == EVENTS


@pytest.mark.parametrize(
    "text, message",
    [
        ("hooks: [{run: [notice]}]", "f:2:16: hooks[0].run[0]: 'notice' is not an absolute path; write the full path"),
        ("hooks: [{on: [attached]}]", "f:2:9: hooks[0].run: is missing"),
        ("hooks: [{run: []}]", "f:2:15: hooks[0].run"),
        ("hooks: [{run: /bin/x}]", "f:2:15: hooks[0].run: is the single value '/bin/x', but must be a list"),
        ("hooks: [{run: [/bin/x], on: [atached]}]", "f:2:30: hooks[0].on[0]: "),
        ("hooks: [{run: [/bin/x], when: [attached]}]", "f:2:25: hooks[0].when: unknown key"),
        ("hooks: {run: [/bin/x]}", "f:2:8: hooks: is a mapping, but must be a list"),
        ('hooks: [{run: [/bin/x, "a\\0"]}]', "f:2:15: hooks[0].run: a word contains a NUL character"),
    ],
)
def test_invalid_hooks(text, message):
    assert [line for line in messages(f"version: 1\n{text}\n") if line.startswith(message)], messages(
        f"version: 1\n{text}\n"
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "f:1:1: version: is missing; add it, like `version: 1`"),
        (
            "[]",
            "f:1:1: the document is a list, but must be a mapping; write it like {version: 1, times: {delivery: 20s}}",
        ),
        ("version: 1\ntimes: 'x\n", "f:2:8: the quote opened here is never closed; close it"),
        ("version: 1\ntime: {}\n", "f:2:1: time: unknown key; did you mean 'times'?"),
        ("version: 1\ntimes: {setle: 1s}\n", "f:2:9: times.setle: unknown key; did you mean 'settle'?"),
        (
            "version: 1\ntimes: 10s\n",
            "f:2:8: times: is the single value '10s', but must be a mapping; write it like {delivery: 20s, give_up: 4}",
        ),
        (
            "version: 1\ntimes: {xl: [1s]}\n",
            "f:2:13: times.xl: is a list, but must be a single value; write it like 60s",
        ),
        (
            "version: 1\ntimes: {xl: 1 day}\n",
            "f:2:13: times.xl: '1 day' is not a duration; write a number and ms, s, m or h, like 500ms or 10s",
        ),
        ("version: 1\ntimes: {xl: 0s}\n", "f:2:13: times.xl: '0s' is zero; write more than 0"),
        (
            "version: 1\ntimes: {give_up: 1.5}\n",
            "f:2:18: times.give_up: '1.5' is not a count; write a whole number, like 8",
        ),
        (
            "version: 1\ntimes: {backoff_max: 500ms}\n",
            "f:2:22: times.backoff_max: backoff_max (0.5s) is shorter than "
            "backoff_first (1s); make it at least as long",
        ),
        (
            "version: 1\ntimes: {backoff_first: 2m}\n",
            "f:2:24: times.backoff_first: backoff_max (60s) is shorter than "
            "backoff_first (120s); make it at least as long",
        ),
        (
            "version: 1\nhistory: {size: 1 MB}\n",
            "f:2:17: history.size: '1 MB' is not a size; write a number and KiB, MiB or GiB, like 1 MiB",
        ),
        (
            "version: 1\nstate: run\n",
            "f:2:8: state: 'run' is not an absolute path; start it with /, like /run/xenplug",
        ),
        (
            "version: 1\ntoolstack: {xl: bin/xl}\n",
            "f:2:17: toolstack.xl: 'bin/xl' is not a program; write its name, like xl, or its absolute path",
        ),
        (
            "version: 1\ncontrol: {group: a b}\n",
            "f:2:18: control.group: 'a b' is not a group; write a name from /etc/group, or a number",
        ),
        ("version: 1\non_stop: stay\n", "f:2:10: on_stop: 'stay' is not known here; write keep or detach"),
        ("version: 1\non_stop:\n", "f:2:1: on_stop: has no value; write one, or remove it"),
    ],
)
def test_refused(text, message):
    assert messages(text) == [message]


def test_a_setting_with_a_problem_keeps_its_default():
    settings, origins, _ = load(b"version: 1\ntimes: {xl: soon, delivery: 3}\non_stop: never\n", "f")
    assert (settings.times.xl, settings.times.delivery, settings.on_stop) == (60.0, 3.0, "keep")
    assert origins["times.xl"] == module.DEFAULT


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("10s", 10),
        ("10", 10),
        ("500ms", 0.5),
        ("0.3s", 0.3),
        ("2m", 120),
        ("1h", 3600),
        ("1.5h", 5400),
        ("0", 0),
        ("8 s", 8),
    ],
)
def test_duration(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text, bytes_", [("1", 1), ("2KiB", 2048), ("1 MiB", 1 << 20), ("1GiB", 1 << 30), ("5 B", 5)])
def test_size(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize("read", [duration, size, count])
@pytest.mark.parametrize("text", ["", " ", "-1", "1e3", "1d", "s", "1s1", "٣", "9" * 20, "1\n"])
def test_no_unit_reads_nonsense(read, text):
    with pytest.raises(ValueError, match="; write"):
        read(text)
