"""A device's string reaches a terminal or a log only as one printable line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplug.core.usb.sanitize import MAX_CHARACTERS, sanitize


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b" \t\n", None, id="blank"),
        pytest.param(b"Optical Wheel Mouse\n", "Optical Wheel Mouse", id="plain, sysfs ends the line"),
        pytest.param(b"a  b\t c", "a b c", id="blanks collapse"),
        pytest.param("Größe ¥ 鍵盤".encode(), "Größe ¥ 鍵盤", id="any script stays"),
        pytest.param(b"caf\xe9", "caf\ufffd", id="not UTF-8"),
        pytest.param(
            b"Stick\nMay 1 host xenplug: attached", "Stick May 1 host xenplug: attached", id="forged log line"
        ),
        pytest.param(b"\x1b[31mred\x1b[0m", "red", id="ANSI colour"),
        pytest.param(b"\x1b]0;title\x07text", "text", id="terminal title"),
        pytest.param("\x9b2Jtext", "text", id="8-bit CSI"),
        pytest.param(b"\x1b", None, id="lone escape"),
        pytest.param("abc\u202egnp.exe", "abcgnp.exe", id="reading direction"),
        pytest.param("a\u200bb\u00adc\ufeff", "abc", id="zero width"),
        pytest.param("\u3164\u2800\u115f", None, id="blank letters"),
        pytest.param("a\u2028b\u2029c\u0085d", "a b c d", id="Unicode line breaks"),
        pytest.param("a\ue000\ud800\U000e0001b", "ab", id="private, surrogate, tag"),
        pytest.param(b"\0\0\0", None, id="NULs"),
        pytest.param('"; rm -rf / ,$(x)', '"; rm -rf / ,$(x)', id="quotes are only text"),
        pytest.param(b"x" * 1000, "x" * MAX_CHARACTERS, id="too long"),
        pytest.param(b" " * 100_000 + b"x", None, id="only the first bytes count"),
    ],
)
def test_clean(raw: bytes | str | None, expected: str | None) -> None:
    assert sanitize(raw) == expected


def test_limit() -> None:
    assert sanitize("ab cdef", limit=3) == "ab"


@settings(deadline=None)
@given(st.binary() | st.text(st.characters(exclude_categories=())), st.integers(1, 200))
def test_output_is_one_short_printable_line(raw: bytes | str, limit: int) -> None:
    text = sanitize(raw, limit)
    if text is not None:
        assert text.isprintable()
        assert 0 < len(text) <= limit
        assert text == " ".join(text.split())
        assert sanitize(text, limit) == text
