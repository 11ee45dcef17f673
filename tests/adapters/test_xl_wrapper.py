"""Debian's wrapper script around xl is bypassed if that makes no difference."""

from pathlib import Path

import pytest

from xenplug.adapters.xl import past_wrapper

OWN = "/usr/lib/xen-4.17/bin/xl"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Debian dom0 that runs Xen 4.17."""
    for file in ("usr/lib/xen-common/bin/xen-utils-wrapper", OWN[1:], "usr/lib/xen-4.20/bin/xl"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    (tmp_path / "usr/sbin").mkdir()
    (tmp_path / "usr/sbin/xl").symlink_to("../lib/xen-common/bin/xen-utils-wrapper")
    (tmp_path / "sys/hypervisor/version").mkdir(parents=True)
    for part, number in (("major", "4"), ("minor", "17")):
        (tmp_path / "sys/hypervisor/version" / part).write_text(f"{number}\n")
    return tmp_path


@pytest.mark.parametrize("xl", ["xl", "/usr/sbin/xl"])
def test_the_xl_of_the_xen_that_runs(root: Path, xl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/usr/sbin")
    assert past_wrapper(xl, root) == OWN


@pytest.mark.parametrize("gone", ["sys/hypervisor/version/minor", OWN[1:], "usr/sbin/xl"])
def test_the_wrapper_reports_what_is_wrong(root: Path, gone: str) -> None:
    """The script's messages are better: not under Xen, tools of another version."""
    (root / gone).unlink()
    assert past_wrapper("/usr/sbin/xl", root) == "/usr/sbin/xl"


def test_another_xl_is_left_alone(root: Path) -> None:
    (root / "opt").mkdir()
    (root / "opt/xl").touch()
    assert past_wrapper("/opt/xl", root) == "/opt/xl"
