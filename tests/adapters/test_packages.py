"""The package that a file belongs to, as the package managers of the distributions answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from xenplug.adapters.packages import package_of
from xenplug.core.protocols import Result

XL = "/usr/lib/xen-4.20/bin/xl"


class Tools:
    """Commands (core/protocols) that answer by the first two words; the others are not installed."""

    def __init__(self, said: dict[str, str]) -> None:
        self._said = said

    async def run(self, argv: Sequence[str], timeout: float) -> Result:
        text = self._said.get(" ".join(argv[:2]))
        return Result(tuple(argv), 0, text) if text is not None else Result(tuple(argv), None, error="no such program")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ({"dpkg-query -S": f"xen-utils-4.20: {XL}\n", "dpkg-query -W": "4.20.2+37-g61ff35323e-0+deb13u1"},
         "4.20.2+37-g61ff35323e-0+deb13u1"),
        ({"dpkg-query -S": f"libx:amd64, liby: {XL}\n", "dpkg-query -W": "1:4.17.7"}, "1:4.17.7"),
        ({"rpm -qf": "4.20.1_04-150600.1.2\n"}, "4.20.1_04-150600.1.2"),
        ({"rpm -qf": "4.19.3-2.fc42\n4.19.3-2.fc42\n"}, "4.19.3-2.fc42"),
        ({"pacman -Qo": f"{XL} is owned by xen 4.20.1-1\n"}, "4.20.1-1"),
        ({"apk info": f"{XL} is owned by xen-4.20.1-r2\n"}, "4.20.1-r2"),
        ({"rpm -qf": "\x1b[2J 4.20\n"}, None),
        ({"dpkg-query -S": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_package_of_a_file(said: dict[str, str], version: str | None) -> None:
    assert asyncio.run(package_of(Tools(said), XL)) == version


def test_a_program_without_a_path_belongs_to_none() -> None:
    assert asyncio.run(package_of(Tools({"rpm -qf": "4.20"}), "xl")) is None
