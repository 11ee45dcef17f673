"""The digest of a policy: framed unambiguously, independent of the folder, and computed by hand as the docs say."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplug.core.policy.digest import PolicyIdentity, digest
from xenplug.core.policy.load import load
from xenplug.service.policy_store import read_policy

A, B = b"version: 1\nlabel: kiosk-2026.48\n", b"version: 1\nrules: []\n"
DOCS = Path(__file__).parents[3] / "docs/reference/control-interface.md"


def test_one_file() -> None:
    assert digest({"/etc/a.yaml": b"x\n"}) == hashlib.sha256(b"6:a.yaml,2:x\n,").hexdigest()


def test_the_folder_does_not_count_but_names_and_contents_do() -> None:
    here = digest({"/etc/p/a.yaml": A, "/etc/p/b.yaml": B})
    assert here == digest({"/srv/x/a.yaml": A, "/srv/x/b.yaml": B}) == digest({"a.yaml": A, "b.yaml": B})
    others = [{"a.yaml": A}, {"a.yaml": A, "c.yaml": B}, {"a.yaml": B, "b.yaml": A}, {"a.yaml": A, "b.yaml": B + b"\n"}]
    assert here not in {digest(files) for files in others}


FILES = st.dictionaries(st.text("ab:,0123456789\n", min_size=1, max_size=6), st.binary(max_size=12), max_size=3)


@given(FILES, FILES)
def test_different_files_have_different_digests(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (digest(one) == digest(other)) == (list(one.items()) == list(other.items()))


def test_what_does_not_load_has_none() -> None:
    assert load({"a.yaml": A}).digest == digest({"a.yaml": A})
    assert load({"a.yaml": A, "b.yaml": b"version: 2\n"}).digest is None


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_docs_compute_it_by_hand(tmp_path: Path, shell: str) -> None:
    for name, content in {"B.yaml": A, "a.yaml": B, "10 ä.yaml": b"version: 1\n# no newline", "z.yml~": b""}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".hidden.yaml").write_bytes(B)
    found = re.search(r"^    cd /etc/xenplug/policies.d\n((?:    .*\n)+)", DOCS.read_text(), re.M)
    assert found
    run = subprocess.run([shell, "-c", found[1]], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert run.stdout.split()[0] == read_policy(tmp_path).digest


def test_words_for_people() -> None:
    known = "0123456789abcdef" * 4
    assert str(PolicyIdentity(known, "kiosk")) == "kiosk (digest 0123456789ab)"
    assert str(PolicyIdentity(known)) == "digest 0123456789ab"
    assert str(PolicyIdentity(None, "kiosk")) == "kiosk"


def label_problems(text: str) -> list[str]:
    return [str(problem) for problem in load({"p.yaml": f"version: 1\nlabel: {text}\n".encode()}).problems]


@pytest.mark.parametrize("text", ["kiosk-2026.48", "a", "1.10", "Büro, 3. Stock", '"x y"', "x" * 64])
def test_labels(text: str) -> None:
    loaded = load({"p.yaml": f"version: 1\nlabel: {text}\n".encode()})
    assert loaded.policy
    assert loaded.policy.label == text.strip('"')


@pytest.mark.parametrize("text", [
    "", '""', '" "', '" x"', '"x "', "x" * 65, '"a\\nb"', '"a\\n"', '"a\\tb"', '"\\e[31mx"', '"a\\u202eb"', '"\\u2028"',
    "[a]", "{a: b}", "null", '"a\\0b"', '"\\x7f"',
])  # fmt: skip
def test_labels_that_are_refused(text: str) -> None:
    [problem] = label_problems(text)
    assert problem.startswith("p.yaml:2:")
    assert ": label: " in problem
    assert problem.isprintable()


def test_a_label_in_two_files() -> None:
    [problem] = load({"a.yaml": A, "b.yaml": A}).problems
    assert str(problem) == "b.yaml:2:1: label: is set twice, first at a.yaml:2; keep one"
