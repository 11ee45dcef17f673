"""A policy with too expensive patterns is refused quickly, with the limit, the position and the remedy."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from tests.core.make import device

from xenplug.core.matching.match import Matcher
from xenplug.core.policy.effort import MAX_POLICY_STATES, MOST_SEARCHED
from xenplug.core.policy.load import load


def loaded(*matches, section="rules"):
    action = "action: host, " if section == "rules" else ""
    inner = (lambda match: f"match: {{{match}}}") if section == "rules" else str
    entries = "".join(f"- {{{action}{inner(match)}}}\n" for match in matches)
    return load({"p.yaml": f"version: 1\n{section}:\n{entries}".encode()})


BIG = "product: '/(a?){{400}}[bc]{}/'"
TOO_MANY = {
    "states": [BIG.format(n) for n in range(400)],
    "small ones": [f"serial: '/a+{n}[bc]/'" for n in range(8000)],
    "in not": [f"not: {{{BIG.format(n)}}}" for n in range(3)],
    "in any": [f"any: [{{{BIG.format(n)}}}, {{kind: mouse}}]" for n in range(3)],
    "in below": ["below: {product: '/(a?){200}[bc]/'}"],
    "in a list": ["product: ['/(a?){400}b/', '/(a?){400}c/']"],
    "over keys": ["product: '/(a?){400}b/', serial: '/(a?){400}c/'"],
}


@pytest.mark.parametrize("matches", TOO_MANY.values(), ids=TOO_MANY)
def test_too_many_states_are_refused(matches):
    start = time.perf_counter()
    [problem] = loaded(*matches).problems
    assert time.perf_counter() - start < 20
    assert f"at most {MAX_POLICY_STATES} are allowed" in problem.message
    assert "; " in problem.message
    assert problem.line >= 3


def test_states_are_counted_over_protect_and_all_files():
    one = loaded("product: '/(a?){400}b/'")
    assert one.policy
    files = {f"{name}.yaml": f"version: 1\nrules: [{{match: {{{BIG.format(name)}}}, action: host}}]" for name in "ab"}
    assert "are allowed;" in load({n: text.encode() for n, text in files.items()}).problems[0].message
    assert "are allowed;" in loaded(*[BIG.format(n) for n in range(2)], section="protect").problems[0].message


def test_the_problem_is_at_the_costliest_match():
    [problem] = loaded("kind: mouse", *["product: '/(a?){300}b/'"] * 2, "product: '/(a?){450}b/'").problems
    assert problem.line == 6


def test_refusing_needs_little_memory():
    text = [BIG.format(n) for n in range(400)]
    tracemalloc.start()
    try:
        loaded(*text)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_plain_text_between_slashes_does_not_count():
    found = loaded(*[f"product: '/mouse {n}/'" for n in range(500)])
    assert found.policy
    assert Matcher(found.policy).decide(device(product="a mouse 42")).rule is found.policy.rules[4]


def test_allowed_patterns_decide_fast():
    matches = ["product: '/(a?){380}[bc]/'", "serial: '/([ab]?[ab]?[ab]?){100}[cd]/'"]
    found = loaded(*matches)
    assert found.policy
    matcher = Matcher(found.policy)
    start = time.perf_counter()
    assert matcher.decide(device(product="a" * 126, serial="ab" * 63)).rule is None
    assert time.perf_counter() - start < 5


def test_sets_in_globs_are_limited():
    glob = f"product: '*{'[ab]?' * 25}*'"
    [problem] = loaded(*[glob] * (MOST_SEARCHED // 50 + 1)).problems
    assert f"at most {MOST_SEARCHED} are allowed" in problem.message
    assert loaded(*[f"product: '{'[ab]?' * 25}{n}*'" for n in range(500)]).policy, "anchored ones take no time"
