"""Every form of match values: the texts that it parses, matches and refuses."""

import pytest

from xenplug.core.policy import patterns as p

FORMS = {
    "tag": p.TagPattern.parse,
    "address": p.AddressPattern.parse,
    "port": p.PlacePattern.parse_port,
    "path": p.PlacePattern.parse_path,
    "bdf": p.BdfPattern.parse,
    "triple": p.InterfacePattern.parse,
    "text": p.parse_text,
    "revision": p.RevisionPattern.parse,
    "kind": p.parse_kind,
    "speed": p.parse_speed,
    "removable": p.parse_removable,
    "fingerprint": p.parse_fingerprint,
}


@pytest.mark.parametrize(
    "form, text, canonical, admits, refuses",
    [
        ("tag", "046d:c016", "046d:c016", ["046d:c016"], ["046d:c017", "046e:c016"]),
        ("tag", "46D:0xC016", "046d:c016", ["046d:c016"], []),
        ("tag", "046d:*", "046d:*", ["046d:c016", "046d:0001"], ["046e:c016"]),
        ("tag", "*:*", "*:*", ["046d:c016"], []),
        ("address", "1.6", "1.6", ["1.6"], ["1.60", "11.6"]),
        ("address", "001.010", "1.10", ["1.10"], ["1.1", "1.8"]),
        ("port", "1-4.2", "1-4.2", ["1-4.2"], ["1-4", "1-4.2.1", "1-4.21"]),
        ("port", "1-1.*", "1-1.*", ["1-1.1", "1-1.4.2"], ["1-1", "1-10", "1-10.1"]),
        (
            "path",
            "pci-0000:00:14.0-usb-0:4.2",
            "pci-0000:00:14.0-usb-0:4.2",
            ["pci-0000:00:14.0-usb-0:4.2"],
            ["pci-0000:00:14.0-usb-0:4"],
        ),
        (
            "path",
            "pci-0000:00:14.0-usb-0:2.*",
            "pci-0000:00:14.0-usb-0:2.*",
            ["pci-0000:00:14.0-usb-0:2.1"],
            ["pci-0000:00:14.0-usb-0:2", "pci-0000:00:14.0-usb-0:20.1"],
        ),
        (
            "path",
            "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1",
            "platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1",
            ["platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1"],
            [],
        ),
        ("bdf", "0000:00:14.0", "0000:00:14.0", ["0000:00:14.0"], ["0000:00:14.1"]),
        ("bdf", "3A:0.1", "0000:3a:00.1", ["0000:3a:00.1"], []),
        ("triple", "03:01:02", "03:01:02", ["03:01:02"], ["03:01:01", "08:01:02"]),
        ("triple", "3", "03:*:*", ["03:01:02", "03:00:00"], ["08:06:50"]),
        ("triple", "EF:0x2:*", "ef:02:*", ["ef:02:01"], ["ef:01:01"]),
        ("text", "Optical*", "optical*", ["OPTICAL Mouse", "optical"], ["an optical mouse"]),
        ("text", "A[12]?", "a[12]?", ["a1x", "A2y"], ["a3x", "a1"]),
        ("text", "/", "/", ["/"], []),
        ("revision", "1.10", "1.10", ["1.10"], ["11.10", "1.11"]),
        ("revision", "0x0110", "1.10", ["1.10"], []),
        ("revision", "00.0A", "0.0a", ["0.0a"], []),
        ("kind", "mouse", "mouse", ["mouse"], ["keyboard"]),
        ("speed", "super+", "super+", ["super+"], ["super"]),
        ("removable", "fixed", "fixed", ["fixed"], ["unknown"]),
    ],
)
def test_parse_and_admit(form, text, canonical, admits, refuses):
    pattern = FORMS[form](text)
    assert str(pattern) == canonical
    assert [value for value in admits if not pattern.admits(value)] == []
    assert [value for value in refuses if pattern.admits(value)] == []
    assert pattern == FORMS[form](text)


@pytest.mark.parametrize(
    "form, texts",
    [
        ("tag", ["", "046d", ":", "046d:", "046d:c0166", "*:c016", "04-6:c016", "046d:c016\n"]),
        ("address", ["", "1", "1.", "1-6", "1.0", "0.6", "1.128", "1.6.2", "a.b", "1.6\n"]),
        ("port", ["", "1", "1-", "1-0", "0-1", "1-4*", "1-*", "1.4", "1-1.2.3.4.5.6.7.8", "1-1.\n"]),
        ("path", ["", "1-4", "pci-0000:00:14.0", "pci-0000:00:14.0-usb-0:4*", "pci-0000:00:14.0-usb-0:0"]),
        ("bdf", ["", "14.0", "0000:00:14", "0000:00:14.8", "0000:00:20.0", "00:14.*"]),
        ("triple", ["", "*", "*:01:02", "03:01:02:04", "100", "g"]),
        ("text", ["", "//", "/(/"]),
        ("revision", ["", "1.1", "1", "110", "1.100", "x.yz"]),
        ("kind", ["", "Mouse", "mice"]),
        ("speed", ["", "480", "fast"]),
        ("removable", ["", "yes"]),
        ("fingerprint", ["", "sha256:", "0f" * 32, "md5:" + "0f" * 16, "sha256:" + "0g" * 32, "sha256:" + "0f" * 33]),
    ],
)
def test_refuses_with_fact_and_remedy(form, texts):
    for text in texts:
        with pytest.raises(ValueError, match=r"; |one of"):
            FORMS[form](text)
