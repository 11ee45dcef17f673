"""`check` compares few pairs of rules and still finds what a comparison of all pairs finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.make import policy
from tests.core.matching.test_match import conditions, devices

from xenplug.core.matching import covering, lint_overlaps
from xenplug.core.matching.covering import Budget, Covering
from xenplug.core.matching.implication import apart, cases, contradictory, covers
from xenplug.core.matching.lint import lint, lint_here
from xenplug.core.matching.match import matches
from xenplug.core.policy.patterns import parse_text
from xenplug.core.policy.rules import Action, Condition, Policy, Protection, Rule, Where

# texts that begin, end, contain and cover each other, and expressions that do
TEXTS = st.sampled_from(
    ["a", "ab", "abc", "a*", "*b", "*", "**", "?", "?*", "[ab]*", "*ab*", "*b?", "*[!a]", "a[b", "A", "ß", "SS",
     "/a/", "/^ab$/", "/b/", "/x*/"]
)  # fmt: skip
texts = st.builds(
    lambda key, values: Condition(key, tuple(map(parse_text, values))),
    st.sampled_from(["serial", "product"]),
    st.lists(TEXTS, min_size=1, max_size=3, unique=True),
)
text_matches = st.lists(texts, min_size=1, max_size=2, unique_by=lambda c: c.key).map(tuple)
groups = st.recursive(
    text_matches | conditions.filter(bool),
    lambda inner: st.builds(
        lambda key, found, more: (Condition(key, (), tuple(found if key == "any" else found[:1])), *more),
        st.sampled_from(["not", "any", "below"]),
        st.lists(inner.filter(bool), min_size=1, max_size=3),
        st.lists(texts, max_size=1),
    ),
    max_leaves=6,
)
all_matches = st.lists(groups | conditions, min_size=1, max_size=12)


def policies(found: list[tuple[Condition, ...]], protect: list[tuple[Condition, ...]]) -> Policy:
    outcomes = [(Action.ATTACH, ("a",)), (Action.BLOCK, ()), (Action.ATTACH, ("b",)), (Action.HOST, ())]
    return Policy(
        rules=tuple(
            Rule(f"r{n}", Where("p", n + 1), match, *outcomes[n * 7 % 4]) for n, match in enumerate(found)
        ),
        protect=tuple(Protection(Where("q", n + 1), match) for n, match in enumerate(protect)),
    )  # fmt: skip


def shadowed(rules: tuple[Rule, ...]) -> Iterator[tuple[int, frozenset[str]]]:
    """All pairs: each rule whose cases are covered by earlier ones, with the first that covers each."""
    for number, rule in enumerate(rules):
        first = [
            next((f"'{w.name}' ({w.where})" for w in rules[:number] if covers(w.conditions, case)), None)
            for case in cases(rule.conditions)
        ]
        if not contradictory(rule.conditions) and None not in first:
            yield number + 1, frozenset(filter(None, first))


def overlapping(rules: tuple[Rule, ...]) -> Iterator[tuple[int, str]]:
    """All pairs of rules that share a value of a naming key, differ, and may share a device."""
    for one, two in sorted(combinations(rules, 2), key=lambda pair: (pair[1].where.line, pair[0].where.line)):
        shared = {(c.key, str(p)) for c in one.conditions if c.key in lint_overlaps.NAMING for p in c.patterns}
        shared &= {(c.key, str(p)) for c in two.conditions for p in c.patterns}
        same = (one.action, one.guests) == (two.action, two.guests)
        alike = covers(one.conditions, two.conditions) or covers(two.conditions, one.conditions)
        if shared and not same and not alike and not apart(one.conditions, two.conditions):
            yield two.where.line, f"'{one.name}' ({one.where})"


def found(problems: list[str], word: str) -> list[str]:
    return [line for line in problems if word in line]


@settings(max_examples=200)
@given(all_matches, st.lists(groups, max_size=4))
def test_as_a_comparison_of_all_pairs(one, protect):
    subject = policies(one, protect)
    problems = [f"{problem.line}: {problem.message}" for problem in lint(subject)]
    expected = dict(shadowed(subject.rules))
    lines = {int(line.partition(":")[0]): line for line in found(problems, "because each device")}
    assert lines.keys() == expected.keys()
    assert all(name in lines[number] for number, names in expected.items() for name in names)
    pairs = list(overlapping(subject.rules))[: lint_overlaps.MOST_OVERLAPS]
    assert sorted(found(problems, "overlaps with")) == sorted(
        line for number, name in pairs for line in found(problems, "overlaps with")
        if line.startswith(f"{number}: ") and f"overlaps with {name}," in line
    )  # fmt: skip
    assert len(found(problems, "overlaps with")) == len(pairs)
    for rule in subject.rules:
        entry = next((p for p in protect if covers(p, rule.conditions)), None)
        told = found([line for line in problems if line.startswith(f"{rule.where.line}: rule")], "is protected (")
        assert bool(told) <= bool(entry)
        if entry and rule.action == Action.ATTACH:
            assert f"(q:{protect.index(entry) + 1})" in told[0]


@given(groups, groups, devices, TEXTS.filter(lambda text: text.isalpha()))
def test_covers_and_apart_are_sound_for_all_texts(wide, narrow, one, text):
    one = replace(one, serial=text, product=text)
    if matches(narrow, one):
        assert matches(wide, one) or not covers(wide, narrow)
        assert not (matches(wide, one) and apart(wide, narrow))


def test_a_glob_and_an_expression_may_match_the_same_text():
    """Nothing is known of the texts that both match, so neither `not` nor `serial` tells such rules apart."""
    subject = policy(
        "rules: [{match: {not: {serial: /a/}}, attach: a}, {match: {serial: '*b'}, attach: b}, "
        "{match: {serial: /b/, device: 1:1}, attach: a}, {match: {serial: '*c', device: 1:1}, attach: b}]"
    )
    assert not [problem for problem in lint(subject) if "shadowed" in problem.message]
    assert [problem for problem in lint(subject) if "overlaps" in problem.message]


KINDS: dict[str, Callable[[int], str]] = {
    "globs": lambda n: f"product: '*thing {n:05}*'",
    "globs with the same first letter": lambda n: f"product: 'x{n}*'",
    "globs with the same longest text": lambda n: f"product: '*thing?x{n}*'",
    "globs and a kind": lambda n: f"kind: mouse, product: '*x{n}*'",
    "globs of one device": lambda n: f"device: 1:1, product: '*x{n}*'",
    "exact and globs": lambda n: f"serial: '*x{n}*'" if n % 2 else f"serial: sn{n:05}",
    "exact": lambda n: f"serial: sn{n}, device: 1:1",
    "any of globs": lambda n: f"any: [{{product: '*a{n}*'}}, {{serial: 'b{n}*'}}]",
    "any of tags": lambda n: f"any: [{{device: {n:04x}:1, kind: mouse}}, {{device: {n:04x}:2}}]",
    "not of globs": lambda n: f"not: {{product: '*a{n}*'}}",
    "not of tags, and a kind": lambda n: f"kind: mouse, not: {{device: {n:04x}:1}}",
    "not of several": lambda n: f"kind: mouse, not: {{device: {n:04x}:1, kind: mouse, product: 'x{n}*'}}",
    "any of a kind and a tag": lambda n: f"any: [{{kind: mouse, serial: '*{n}x*'}}, {{device: {n:04x}:1}}]",
    "below": lambda n: f"below: {{device: {n:04x}:1, kind: hub}}",
    "any below": lambda n: f"any: [{{below: {{device: {n:04x}:1}}}}, {{kind: mouse, below: {{device: {n:04x}:2}}}}]",
    "lists": lambda n: f"serial: ['*x{n}*', 'y{n}*', z{n}], kind: [mouse, keyboard]",
    "interfaces": lambda n: f"interfaces: ['03', '{n % 256:02x}:{n // 256:02x}:01']",
    "paths": lambda n: f"speed: high, path: 'pci-0000:00:14.0-usb-0:1.{n // 250 + 1}.{n % 250 + 1}.*'",
}


def compared(count: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The pairs of rules that lint compares."""
    pairs = 0

    def spend(*_pair: object) -> bool:
        nonlocal pairs
        pairs += 1
        return True

    monkeypatch.setattr(Budget, "spend", spend)
    lines = "".join(f"  - {{match: {{{KINDS[kind](n)}}}, attach: {'ab'[n % 2]}}}\n" for n in range(count))
    entries = ", ".join(f"{{{KINDS[kind](n)}}}" for n in range(count, 2 * count))
    lint(policy(f"protect: [{entries}]\nrules:\n{lines}"))
    return pairs


@pytest.mark.parametrize("kind", KINDS)
def test_few_pairs_are_compared(kind, monkeypatch):
    assert compared(200, kind, monkeypatch) <= 2 * compared(100, kind, monkeypatch) + 50


HARD: dict[str, Callable[[int], str]] = {
    "sets without a text": lambda n: f"product: '{'?' * (n % 15)}[a-{chr(98 + n % 20)}]*?[0-{n % 9}]{n}'",
    "all with one text": lambda n: (
        f"product: '*x*', serial: '*x*', manufacturer: '*x*', revision: {n % 99}.{n // 99:02}"
    ),
    "exact texts of one glob": lambda n: (
        f"serial: x{n}, product: x" if n % 2 else f"product: '*x', serial: '{'?' * n}x*'"
    ),
    "long lists": lambda n: "serial: [" + ", ".join(f"'*{n}x{m}*'" for m in range(30)) + f", '[a-c]{n}']",
}


@pytest.mark.parametrize("kind", HARD)
def test_the_work_is_bounded_and_says_so(kind, monkeypatch):
    """Whatever the rules: at most the budget is spent, and if it was, the first rule that was left out is named."""
    monkeypatch.setattr(covering, "MAX_COMPARISONS", 300)
    monkeypatch.setattr(Budget.__init__, "__defaults__", (300,))
    calls = 0

    def counted(*pair: tuple[Condition, ...]) -> bool:
        nonlocal calls
        calls += 1
        return covers(*pair)

    monkeypatch.setattr("xenplug.core.matching.lint.covers", counted)
    lines = "".join(f"  - {{match: {{{HARD[kind](n)}}}, attach: {'ab'[n % 2]}}}\n" for n in range(120))
    lint(policy(f"rules:\n{lines}"))
    assert calls <= 300


def test_what_was_not_compared_is_said(monkeypatch):
    monkeypatch.setattr(Budget.__init__, "__defaults__", (40,))
    lines = [f"  - {{name: r{n}, match: {{serial: 's{n}'}}, attach: a}}\n" for n in range(30)]
    alike = [f"  - {{name: g{n}, match: {{serial: '*[0-{n}]*?'}}, attach: a}}\n" for n in range(8)]
    same = "  - {name: last, match: {serial: s3}, attach: b}\n"
    for text in ("".join([*alike, *lines, same]),):
        messages = [problem.message for problem in lint(policy(f"rules:\n{text}"))]
        told = found(messages, "were not compared with all earlier rules")
        assert len(told) == 1
        assert told[0].startswith("from rule '")
        assert "; combine rules with the same outcome" in told[0]


def test_this_host_is_compared_by_its_devices(monkeypatch):
    """Ten thousand rules, a hundred devices: only the rules that a device may match are tried."""
    from tests.core.make import device

    tried = 0

    def counted(match: tuple[Condition, ...], one: object) -> bool:
        nonlocal tried
        tried += 1
        return matches(match, one)  # type: ignore[arg-type]

    monkeypatch.setattr("xenplug.core.matching.lint.matches", counted)
    lines = "".join(f"  - {{match: {{device: {n:04x}:0001, product: '*x{n}*'}}, attach: a}}\n" for n in range(1000))
    here = [device(f"1-{n}", n) for n in range(1, 101)]
    assert lint_here(policy(f"rules:\n{lines}"), here, ()) == []
    assert tried == 0


def test_similar_names_are_searched_for_the_first_guests_only():
    guests = ", ".join(f"guest{n}: {{}}" for n in range(2000))
    lines = "".join(f"  - {{match: {{device: {n:04x}:1}}, attach: vm{n}}}\n" for n in range(2000))
    subject = policy(f"guests: {{{guests}}}\nrules:\n{lines}")
    assert len([p for p in lint(subject) if "no rule attaches anything" in p.message]) == 2000
    assert len(lint_here(subject, (), [f"vm-{n}" for n in range(300)])) == 2000


def test_covering_names_each_candidate_once_in_order():
    many = [policy(f"rules: [{{match: {{{KINDS['lists'](n % 3)}}}, attach: a}}]").rules[0].conditions for n in range(9)]
    index = Covering(many, many)
    assert list(index.may_cover(many[0])) == [0, 3, 6]
