"""A scenario's device that claims to be a hub: only a hub, or a hub and something else."""

from __future__ import annotations

from typing import Any

import pytest

from xenplug.core.model import Interface
from xenplug.scenario.format import device

CHILDREN = {"children": [{"port": "1-1.1", "device": "046d:c016"}]}


@pytest.mark.parametrize(
    ("spec", "class_", "hub", "partly_hub"),
    [
        ({"kind": "hub"}, 9, True, False),
        ({"interfaces": ["09:00:00"]}, 9, True, False),
        ({"class": "09:00:01"}, 9, True, False),
        (CHILDREN, 9, True, False),
        ({"interfaces": ["03:01:01", "08:06:50", "09:00:00"]}, 0, False, True),
        ({"interfaces": ["09:00:00"], "class": "ef:02:01"}, 0xEF, False, True),
        ({"interfaces": ["08:06:50"], "class": "09:00:00"}, 9, False, True),
        ({"interfaces": ["08:06:50"], **CHILDREN}, 9, False, True),
        ({"interfaces": ["08:06:50", "09:00:00"], **CHILDREN}, 0, False, True),
        ({"kind": "mouse"}, 0, False, False),
        ({}, 0, False, False),
    ],
)
def test_hub(spec: dict[str, Any], class_: int, hub: bool, partly_hub: bool) -> None:
    made = device({"port": "1-1", "device": "05e3:0608", **spec})
    assert (made.device_class.class_, made.hub, made.partly_hub) == (class_, hub, partly_hub)
    assert made.interfaces


def test_the_description_is_kept() -> None:
    made = device({"port": "1-1", "device": "05e3:0608", "interfaces": ["03:01:01", "09:00:00"]})
    assert made.interfaces == (Interface(3, 1, 1), Interface(9, 0, 0))
