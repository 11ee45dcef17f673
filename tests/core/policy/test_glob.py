"""Globs: one parser for matching and index, compared with Python's fnmatch; no text of a device makes them slow."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.core.make import device, policy

from xenplug.core.matching.index import Index
from xenplug.core.matching.match import Matcher, matches
from xenplug.core.policy.conditions import FORMS
from xenplug.core.policy.glob import CharSet, read_glob
from xenplug.core.policy.patterns import TextPattern
from xenplug.core.policy.rules import Condition

PIECES = "a b ab ] [ ! ^ - \\ * ? [] [!] []] [!]] [^] [^]] [a- [b-a] [a-b] [!a-b] [--a] [a-] [\\]] [[] [!*] [a]b] &&"
GLOBS = st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=5).map("".join)
TEXTS = st.text("ab]![^-\\*?& ", max_size=6)
FOLDED = st.text("aßſKİıſſﬁkKsS]![^-*?", min_size=1, max_size=6)
"""Characters that change their length or their kind when case is taken off them."""


def reversed_range(glob):
    """Whether a set holds a range whose end is before its start: Python 3.11's fnmatch then reads `[b-a!]` as `?`."""
    pieces = [piece for segment in read_glob(glob).segments for piece in segment.pieces if isinstance(piece, CharSet)]
    return any(low > high for piece in pieces for low, high in piece.ranges)


@given(GLOBS.filter(lambda glob: not reversed_range(glob)), TEXTS)
@example("[!]]*", "a")
@example("[]]*", "]")
@example("[]", "[]")
@example("[a-b-]", "-")
@example("**a**", "a")
def test_a_glob_is_read_as_by_fnmatch(glob, text):
    assert read_glob(glob).admits(text) == fnmatch.fnmatchcase(text, glob)


@pytest.mark.parametrize(("glob", "fits"), [("[b-a]", ""), ("[b-a!]", "!"), ("[a-!!]", "!"), ("[b-ac]", "c")])
def test_a_reversed_range_is_empty(glob, fits):
    assert [char for char in "abcxz]-!" if read_glob(glob).admits(char)] == list(fits)


@given(GLOBS)
def test_the_canonical_form_is_stable(glob):
    found = read_glob(glob)
    assert read_glob(found.text) == found


@given(st.one_of(GLOBS, FOLDED), st.one_of(TEXTS, FOLDED))
def test_every_matching_text_contains_the_literal_of_the_index(glob, text):
    found = read_glob(glob)
    if found.admits(text.casefold()):
        assert found.literal in text.casefold()
        assert found.exact in (None, text.casefold())


VALUES = {
    "serial": st.one_of(GLOBS, FOLDED, st.sampled_from(["/a/", "/^[]a]/", "/ß/", "/(a|ß)?b/", "/[ß]/"])),
    "product": st.one_of(GLOBS, FOLDED),
    "interface": st.sampled_from(["03", "03:*:01", "03:01:*", "08:06:50", "ff"]),
    "device": st.sampled_from(["046d:c016", "046d:*", "*:*", "1:2"]),
    "path": st.sampled_from(["pci-0000:00:14.0-usb-0:1", "pci-0000:00:14.0-usb-0:1.*", "pci-0000:00:14.0-usb-0:2"]),
}


def condition(key):
    read = st.lists(VALUES[key].map(FORMS[key]), min_size=1, max_size=2)
    return read.map(lambda patterns: Condition(key, tuple(patterns)))


RULES = st.lists(
    st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=2, unique=True).flatmap(
        lambda keys: st.tuples(*map(condition, keys))
    ),
    min_size=1,
    max_size=8,
)


@given(RULES, st.one_of(TEXTS, FOLDED), st.one_of(st.none(), TEXTS, FOLDED), st.sampled_from(["1-1", "1-1.2"]))
def test_the_index_misses_no_matching_rule(rules, product, serial, port):
    here = device(port, product=product, serial=serial)
    fitting = {number for number, conditions in enumerate(rules) if matches(conditions, here)}
    assert fitting <= set(Index(rules).candidates(here))


@pytest.mark.parametrize("glob", ["[!]]*", "*[!]]*", "[]a]*", "[^]]*", "?[!]*]*"])
@pytest.mark.parametrize("key", ["product", "serial", "manufacturer"])
def test_a_block_rule_with_an_unusual_set_blocks(key, glob):
    rules = policy(f"rules: [{{match: {{{key}: '{glob}'}}, action: block}}, {{action: host, match: {{kind: mouse}}}}]")
    here = device(**{key: "^]x"} if glob.startswith("[^") else {key: "ax]x"})
    assert fnmatch.fnmatchcase(getattr(here, key), glob)
    assert Matcher(rules).decide(here).action == "block"


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [("[A-_]x", "Qx", "~x"), ("[!A-_]x", "~x", "qx"), ("[@-Z]", "b", "["), ("[À-Ö]", "é", "÷"), ("[A-Z]", "q", "[")],
)
def test_a_range_keeps_its_meaning_in_lower_case(glob, yes, no):
    assert TextPattern.parse(glob).admits(yes)
    assert not TextPattern.parse(glob).admits(no)


def test_no_text_makes_globs_slow():
    """Ten thousand of them, all tried. The bounds are for the kind of growth, not for speed."""
    worst = "\n".join(f"- {{match: {{product: '*a[ab]?b*{n:05}'}}, action: host}}" for n in range(10_000))
    matcher = Matcher(policy(f"rules:\n{worst}"))
    start = time.perf_counter()
    assert matcher.decide(device(product="ab" * 63)).rule is None
    assert time.perf_counter() - start < 10
    many = [TextPattern.parse(f"*{'[ab]' * 60}{n}c*") for n in range(100)]
    start = time.perf_counter()
    assert not any(pattern.admits("ab" * 63) for pattern in many)
    assert time.perf_counter() - start < 10
