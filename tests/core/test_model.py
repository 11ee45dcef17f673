"""DeviceKey: the key of one enumeration of a device."""

from __future__ import annotations

import pytest
from tests.core.make import device

from xenplug.core.model import DeviceKey


@pytest.mark.parametrize("text", ["1-1@5", "1-4.2@127", "12-3.10.4@6"])
def test_a_device_key_is_written_and_read(text):
    key = DeviceKey.parse(text)
    assert (str(key), f"{key}") == (text, text)
    assert key == device(key.port, key.number).key


@pytest.mark.parametrize(
    "text",
    ["", "1-1", "1-1@", "@5", "1@5", "usb1@5", "1-1@5 ", "1-1@5\n", "1-1@x", "1-1@-5", "1-1@1234", "1-1.@5", "1-١@5"],
)
def test_invalid_device_keys(text):
    with pytest.raises(ValueError, match="is not a device key"):
        DeviceKey.parse(text)
