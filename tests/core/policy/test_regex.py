"""The linear-time regular expressions agree with Python's for common syntax, and no text makes them slow."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.policy.regex import compile_


@pytest.mark.parametrize(
    "text, yes, no",
    [
        ("mouse", "Optical MOUSE", "mous"),
        ("^usb", "USB stick", "a usb"),
        ("stick$", "USB Stick", "sticks"),
        ("^(a|bc)+$", "abca", "abcb"),
        ("colou?r", "Color", "colr"),
        ("a{2}", "xaax", "axa"),
        ("^a{1,3}$", "aaa", "aaaa"),
        ("^a{2,}$", "aaaa", "a"),
        ("[a-f0-9]{4}", "xBEEFx", "bee-f"),
        ("^[^0-9]+$", "abc", "ab1"),
        ("[]x]", "]", "y"),
        ("[a-]", "-", "b"),
        (r"\bps/?2\b", "a PS/2 port", "xps2"),
        (r"\d+\.\d", "rev 12.5", "rev 12-5"),
        (r"^\W\S\D$", " ab", "ab1"),
        (r"\(x\)", "(X)", "x"),
        ("a.c", "a\tc", "ac"),
        ("a.*?c", "abbc", "ab"),
        ("", "", None),
        ("^$", "", "a"),
        ("straße", "STRASSE", "strase"),
        ("(?:ab)+c", "ababc", "ac"),
        ("a|", "", None),
        ("(a*)*b", "aab", "aa"),
        ("^a{0002}$", "aa", "a"),
        ("^(){99}a$", "a", "b"),
        ("^a{0}b$", "b", "ab"),
        ("strasse", "Straße", "straß"),
        ("[ß-ü]x", "Öx", "ßx"),
    ],
)
def test_matches(text, yes, no):
    assert compile_(text).fits(yes)
    assert no is None or not compile_(text).fits(no)


@pytest.mark.parametrize(
    "text, message",
    [
        ("(a", "never closed"),
        ("a)", "no '\\(' before"),
        ("[a", "never closed"),
        ("[]", "never closed"),
        ("*a", "repeats nothing"),
        ("a**", "two repetitions"),
        ("^*", "does not follow a character"),
        ("a{x}", "does not begin"),
        ("a{3,2}", "wrong order"),
        ("a{1", "does not begin"),
        ("[z-a]", "does not end after its start"),
        ("(?=a)", "look-around"),
        (r"\1", "not supported"),
        (r"\x41", "not supported"),
        ("a\\", "single backslash"),
        ("(a{99}){99}", "repeats too much"),
        ("(" * 30 + "a" + ")" * 30, "nested too deep"),
        ("a{99999}", "repeats too much"),
        ("(((){999}){999}){999}", "repeats too much"),
        ("((((){999}){999}){999}){999}", "repeats too much"),
        ("(((){0,999}){0,999}){0,999}", "repeats too much"),
        ("(((a*){0}){999}){999}", "repeats too much"),
        ("((^|$){999}){999}", "repeats too much"),
        ("((((){999,}){999,}){999,}){999,}", "repeats too much"),
        ("((|){999}){999}", "repeats too much"),
        ("^a{000002}$", "more than 4 digits"),
        ("a{2,000003}", "more than 4 digits"),
        ("a{00000,2}", "more than 4 digits"),
        ("a{0," + "9" * 200 + "}", "more than 4 digits"),
    ],
)
def test_invalid_expressions_are_refused(text, message):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as caught:
        compile_(text)
    assert time.perf_counter() - start < 2
    assert "; " in str(caught.value)


@pytest.mark.parametrize("text", ["(a+)+b", "(a*)*b", "(a|aa)+b", "(a|a)*b", "(.*)*(.*)*b", "^(a?){120}a{120}b"])
def test_no_text_makes_it_slow(text):
    found = compile_(text.replace("b", "[bc]"))
    start = time.perf_counter()
    assert not found.fits("a" * 126)
    assert time.perf_counter() - start < 2


pieces = st.sampled_from(["a", "b", ".", "^", "$", "[ab]", "[^a]", r"\d", r"\b", "ab", "1"])
expressions = st.recursive(
    pieces,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(st.sampled_from(["a", "b", "."]), st.sampled_from("*+?")).map("".join),
        st.tuples(inner, st.sampled_from(["{0,2}", "{2}", "*"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
    ),
    max_leaves=6,
)


@given(expressions)
def test_the_state_count_is_exact(text):
    found = compile_(text)
    assert found.size in (0, len(found.program.states))


@given(expressions, st.text("ab1 ", max_size=8))
def test_it_agrees_with_pythons(text, value):
    # Python's $ also holds before a last newline; there is none here.
    assert compile_(text).fits(value) == bool(re.search(text, value)), text


@given(st.text("ab(){}[]|*+?^$\\-,1.", max_size=20), st.text("ab1", max_size=5))
def test_any_expression_is_compiled_or_refused(text, value):
    try:
        compile_(text).fits(value)
    except ValueError as refused:
        assert "; " in str(refused)
