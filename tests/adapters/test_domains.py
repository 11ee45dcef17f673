"""What libxl's files and /proc show of a guest."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from xenplug.adapters.domains import XenDomains

UUID = "ec2a7b1e-7e6a-4d53-9d1f-0a8b1f0f8a11"


@pytest.mark.parametrize(
    ("domid", "uuid", "expected"),
    [(5, UUID, True), (6, UUID, False), (5, "other", False), (5, "../x", False)],
    ids=["ready", "other domid", "other uuid", "no uuid"],
)
def test_ready(tmp_path: Path, domid: int, uuid: str, expected: bool) -> None:
    (tmp_path / f"userdata-d.5.{UUID}.libxl-json").touch()
    assert XenDomains(xen_lib=tmp_path).ready(domid, uuid) is expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/dev/bus/usb/001/006", {(1, 6)}),
        ("/dev/bus/usb/012/107", {(12, 107)}),
        ("/media/dev/bus/usb/001/006", set()),
        ("/dev/bus/usb/001/006 (deleted)", set()),
    ],
    ids=["held", "another", "elsewhere", "gone"],
)
def test_held(tmp_path: Path, target: str, expected: set[tuple[int, int]]) -> None:
    fd = tmp_path / "77/fd"
    fd.mkdir(parents=True)
    (fd / "0").symlink_to("/dev/null")
    (fd / "9").symlink_to(target)
    (fd / "10").touch()
    assert XenDomains(proc=tmp_path).held(77) == expected


def test_no_such_process(tmp_path: Path) -> None:
    assert not XenDomains(proc=tmp_path).held(78)


def test_a_real_process(tmp_path: Path) -> None:
    node = tmp_path / "bus/usb/001/006"
    node.parent.mkdir(parents=True)
    domains = XenDomains(dev=tmp_path)
    with node.open("w"):
        assert domains.held(os.getpid()) == {(1, 6)}
    assert not domains.held(os.getpid())


def test_the_end_of_a_process_is_reported() -> None:
    """Whatever its parent is, even while it is a zombie; reported once."""

    async def story() -> tuple[bool, list[str], bool]:
        domains, endings = XenDomains(), list[str]()
        domains.ended = lambda: endings.append("ended")
        process = subprocess.Popen(["sleep", "60"])
        alive = domains.lives(process.pid) and domains.lives(process.pid)
        process.kill()
        async with asyncio.timeout(5):
            while not endings:
                await asyncio.sleep(0.01)
        zombie = domains.lives(process.pid)
        process.wait()
        await asyncio.sleep(0.05)
        return alive, endings, zombie or domains.lives(process.pid)

    assert asyncio.run(story()) == (True, ["ended"], False)


def test_a_process_that_never_existed_is_not_alive(tmp_path: Path) -> None:
    assert not XenDomains(proc=tmp_path).lives(1)
