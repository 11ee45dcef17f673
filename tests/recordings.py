"""Recordings made by tests: devices with hostile strings."""

from __future__ import annotations

from pathlib import Path

MOUSE = Path(__file__).parent / "data/umockdev/mouse.umockdev"
HOSTILE = {
    "escape": b"\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "lines": b"one\ntwo\r\nthree\x00\x08",
    "quotes": b"say \"hi\", 'ho' \\ {a: b} `id` $(id), %s",
    "latin": b"caf\xe9 \xff\xfe",
    "turned": "abc\u202eexe.gpj".encode(),
    "c1": "a\x9b31mb\x85c".encode(),
}
"""By name: the device's strings."""


def hostile(path: Path, name: bytes) -> Path:
    """A recording of a mouse with this text in all its strings."""
    lines = []
    for line in MOUSE.read_text().splitlines():
        key = line.partition("=")[0]
        if key in ("A: product", "A: manufacturer") and "xhci" not in line and "xHCI" not in line:
            lines += [f"H: {key[3:]}={name.hex()}0A"]
            continue
        lines.append(line)
        if line == "A: idVendor=046d\\n":
            lines.append(f"H: serial={name.hex()}0A")
    path.write_text("\n".join(lines) + "\n")
    return path
