"""What several commands need: the usual options, settings, policy, host, and output."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from xenplug.cli.main import Failure

SETTINGS = Path("/etc/xenplug/xenplug.yaml")
POLICY = Path("/etc/xenplug/policies.d")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json"""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """--policy"""
    parser.add_argument("--policy", type=Path, metavar="PATH", help=f"policy file or folder (default {POLICY})")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--settings"""
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"settings file (default {SETTINGS})")


def add_host(parser: argparse.ArgumentParser) -> None:
    """--host"""
    parser.add_argument(
        "--host",
        metavar="udev|FILE",
        help="source of the devices: this host (udev, the default) or a .umockdev recording",
    )


def settings_of(args: argparse.Namespace) -> Any:
    """The settings in force. Raises Failure if the file has a problem: no command runs with partial settings."""
    settings, _origins, problems = read_settings(args)
    if problems:
        print_problems(problems)
        raise Failure(f"the settings have {counted(len(problems), 'problem')}; fix them first")
    return settings


def read_settings(args: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Settings, origins, problems."""
    from xenplug.core import settings as conf

    path = args.settings or SETTINGS
    return conf.load(_settings_text(args, path), str(path))


def _settings_text(args: argparse.Namespace, path: Path) -> bytes | None:
    """The text of the settings file; None if there is no file.

    Raises Failure if it cannot be read, or (`args.guarded`, for the agent) if users other than root can change it: it
    names hooks, which run as root.
    """
    from xenplug.adapters.files import Unfit, read_opened
    from xenplug.adapters.path_permissions import Walk

    walk = Walk()
    try:
        with closing(walk.open(path)) as opened:
            text: bytes | None = read_opened(opened.number, path, 1 << 20)
    except FileNotFoundError:
        if args.settings:
            raise Failure(f"{path}: no such settings file; omit --settings to use the defaults") from None
        text = None
    except OSError as error:
        if error.errno == errno.EINVAL:  # Walk.open: a FIFO, a device
            raise Failure(f"{path}: not a regular file; replace it with one") from None
        raise Failure(f"{path}: cannot be read ({error.strerror}); name a readable file") from None
    except (Unfit, ValueError) as error:
        raise Failure(str(error)) from None
    refuse_unsafe("the settings are", walk.faults() if getattr(args, "guarded", False) else [])
    return text


def refuse_unsafe(what: str, faults: Iterable[tuple[Path, str]]) -> None:
    """Raise Failure if users other than root can change a file that controls what root does."""
    found = [f"{place}: {words}" for place, words in faults]
    if found:
        print_problems(found)
        raise Failure(f"{what} not safe; fix this first")


def print_problems(problems: Iterable[Any]) -> None:
    """Print each problem as one line on stderr."""
    for problem in problems:
        print(problem, file=sys.stderr)


def problem_line(problem: Mapping[str, Any]) -> str:
    """A problem from JSON, in the form that print_problems writes."""
    path = f"{problem['path']}: " if problem["path"] else ""
    return f"{problem['file']}:{problem['line']}:{problem['column']}: {path}{problem['message']}"


def counted(number: int, thing: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def print_json(value: Any) -> None:
    """Print JSON on stdout, ASCII only if stdout is not UTF-8."""
    plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    json.dump(value, sys.stdout, indent=2, ensure_ascii=plain)
    print()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns; an absent value is a dash."""
    lines = [list(header), *([("-" if cell in (None, "") else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def client(args: argparse.Namespace) -> Any:
    """A client of the running agent."""
    from xenplug.adapters.client import Client

    return Client(socket_path(args))


def add_socket(parser: argparse.ArgumentParser) -> None:
    """--socket"""
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the agent's control socket (default: from the settings)"
    )
    add_settings(parser)


def socket_path(args: argparse.Namespace) -> Path:
    """The path of the agent's control socket."""
    return args.socket or Path(settings_of(args).control.socket)


def ask(args: argparse.Namespace, method: str, **parameters: Any) -> dict[str, Any]:
    """Call a method of the running agent. Raises Failure if there is no agent, or if it refuses."""
    from xenplug.adapters.client import ClientError

    try:
        answer: dict[str, Any] = client(args).call(method, **parameters)
    except ClientError as error:
        raise Failure(str(error)) from None
    return answer


def policy_of(args: argparse.Namespace) -> Any:
    """The policy. Prints its problems and raises Failure if it does not load."""
    from xenplug.service.policy_store import read_policy

    loaded = read_policy(args.policy or POLICY)
    if loaded.policy is None:
        print_problems(loaded.problems)
        raise Failure(f"the policy has {counted(len(loaded.problems), 'problem')}; fix them first")
    return loaded.policy


def devices_of(args: argparse.Namespace) -> dict[Any, Any]:
    """The devices of this host (read from sysfs, no root needed) or of a recording, by port."""
    from xenplug.core.usb.device import describe
    from xenplug.core.usb.hubs import linked_all

    found = [describe(raw) for raw in _raw_devices(args)]
    return linked_all({device.port: device for device in found if device})


def _raw_devices(args: argparse.Namespace) -> Iterable[Any]:
    if args.host and args.host != "udev":
        from xenplug.adapters import recording

        try:
            return recording.read(Path(args.host))
        except OSError as error:
            raise Failure(
                f"{args.host}: cannot be read ({error.strerror}); name a .umockdev recording, or udev"
            ) from None
        except ValueError as error:
            raise Failure(str(error)) from None
    from xenplug.adapters.sysfs import Sysfs

    sysfs = Sysfs(Path(settings_of(args).paths.sys))
    return [raw for port in sysfs.ports() if (raw := sysfs.read(port))]
