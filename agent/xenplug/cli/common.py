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
    parser.add_argument("--json", action="store_true", help="print facts as JSON")


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
        help="where the devices are: this host (udev, the default) or a .umockdev recording",
    )


def settings_of(args: argparse.Namespace) -> Any:
    """The settings in force. A file that does not load is a Failure: nothing is done on half-read settings."""
    settings, _origins, problems = read_settings(args)
    if problems:
        print_problems(problems)
        raise Failure(f"the settings have {counted(len(problems), 'problem')}; mend them first")
    return settings


def read_settings(args: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Settings, origins, problems."""
    from xenplug.core import settings as conf

    path = args.settings or SETTINGS
    return conf.load(_settings_text(args, path), str(path))


def _settings_text(args: argparse.Namespace, path: Path) -> bytes | None:
    """The text of the settings file; None if there is none. A Failure if it cannot be read, or (`args.guarded`, for the
    agent) if others than root may change it: it names hooks, which run as root.
    """
    from xenplug.adapters.files import Unfit, read_opened
    from xenplug.adapters.path_permissions import Walk

    walk = Walk()
    try:
        with closing(walk.open(path)) as opened:
            text: bytes | None = read_opened(opened.number, path, 1 << 20)
    except FileNotFoundError:
        if args.settings:
            raise Failure(f"{path}: no such settings file; leave --settings out to use the defaults") from None
        text = None
    except OSError as error:
        if error.errno == errno.EINVAL:  # Walk.open: a FIFO, a device
            raise Failure(f"{path}: not a regular file; put a regular file there") from None
        raise Failure(f"{path}: cannot be read ({error.strerror}); name a file you may read") from None
    except (Unfit, ValueError) as error:
        raise Failure(str(error)) from None
    refuse_unsafe("the settings are", walk.faults() if getattr(args, "guarded", False) else [])
    return text


def refuse_unsafe(what: str, faults: Iterable[tuple[Path, str]]) -> None:
    """A Failure if others than root may change something that decides over what root does."""
    found = [f"{place}: {words}" for place, words in faults]
    if found:
        print_problems(found)
        raise Failure(f"{what} not safe; mend that first")


def print_problems(problems: Iterable[Any]) -> None:
    """Each on its line, on stderr."""
    for problem in problems:
        print(problem, file=sys.stderr)


def problem_line(problem: Mapping[str, Any]) -> str:
    """A problem that came as JSON, as print_problems writes it."""
    path = f"{problem['path']}: " if problem["path"] else ""
    return f"{problem['file']}:{problem['line']}:{problem['column']}: {path}{problem['message']}"


def counted(number: int, thing: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {thing}{'s' * (number != 1)}"


def print_json(value: Any) -> None:
    """Facts for programs."""
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
    parser.add_argument("--socket", type=Path, metavar="PATH", help="the agent's control socket (default: settings)")
    add_settings(parser)


def socket_path(args: argparse.Namespace) -> Path:
    """Where the agent listens."""
    return args.socket or Path(settings_of(args).control.socket)


def ask(args: argparse.Namespace, method: str, **parameters: Any) -> dict[str, Any]:
    """One question or order to the running agent; its refusal is a Failure."""
    from xenplug.adapters.client import ClientError

    try:
        answer: dict[str, Any] = client(args).call(method, **parameters)
    except ClientError as error:
        raise Failure(str(error)) from None
    return answer


def policy_of(args: argparse.Namespace) -> Any:
    """The policy; problems are printed and a Failure."""
    from xenplug.service.policy_store import read_policy

    loaded = read_policy(args.policy or POLICY)
    if loaded.policy is None:
        print_problems(loaded.problems)
        raise Failure(f"the policy has {counted(len(loaded.problems), 'problem')}; mend them first")
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
