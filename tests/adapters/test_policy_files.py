"""Policy files on disk: their order, and everything that can prevent reading them."""

import os
import tempfile
from pathlib import Path

import pytest

from xenplug.adapters.policy_files import read
from xenplug.core.documents.document import MAX_BYTES


def messages(path):
    files, problems = read(path)
    return list(files), [str(problem).replace(str(path), "P") for problem in problems]


def test_a_folder_in_c_locale_order(tmp_path):
    for name in ["b.yaml", "B.yaml", "10-a.yaml", "9-a.yaml", "ä.yaml", "README", ".hidden.yaml", "x.yaml~"]:
        (tmp_path / name).write_text(name)
    files, problems = read(tmp_path)
    assert [name.removeprefix(f"{tmp_path}/") for name in files] == [
        "10-a.yaml",
        "9-a.yaml",
        "B.yaml",
        "b.yaml",
        "ä.yaml",
    ]
    assert files[f"{tmp_path}/B.yaml"] == b"B.yaml"
    assert problems == []


def test_one_file_whatever_its_name(tmp_path):
    (tmp_path / "policy").write_bytes(b"version: 1\n")
    assert read(tmp_path / "policy") == ({f"{tmp_path}/policy": b"version: 1\n"}, [])


def test_a_yml_file_is_reported(tmp_path):
    (tmp_path / "a.yaml").touch()
    (tmp_path / "b.yml").touch()
    (tmp_path / "c.YAML").touch()
    assert messages(tmp_path) == (
        [f"{tmp_path}/a.yaml"],
        [
            "P/b.yml:1:1: not read: only *.yaml files are; rename it to .yaml",
            "P/c.YAML:1:1: not read: only *.yaml files are; rename it to .yaml",
        ],
    )


def test_an_empty_folder(tmp_path):
    assert messages(tmp_path) == (
        [],
        ["P:1:1: contains no *.yaml; write a policy there, or name another with --policy"],
    )


def test_nothing_there(tmp_path):
    assert messages(tmp_path / "none") == (
        [],
        ["P:1:1: cannot be read (No such file or directory); write it, or name another with --policy"],
    )


def test_a_file_that_is_not_regular_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").mkdir()
    (tmp_path / "c.yaml").symlink_to("gone")
    assert messages(tmp_path) == (
        [],
        [
            "P/a.yaml:1:1: cannot be read (it is not a regular file); put a regular file there",
            "P/b.yaml:1:1: cannot be read (it is not a regular file); put a regular file there",
            "P/c.yaml:1:1: cannot be read (No such file or directory); write it, or name another with --policy",
        ],
    )


def test_a_name_that_is_not_text(tmp_path):
    (tmp_path / "a\nb.yaml").touch()
    assert messages(tmp_path) == (
        [],
        ["P/a\\nb.yaml:1:1: cannot be read (its name is not plain text); put a regular file there"],
    )


def test_an_invalid_path(tmp_path):
    files, problems = read(tmp_path / ("x" * 5000))
    assert (files, len(problems)) == ({}, 1)


def test_no_more_than_the_limit_is_read(tmp_path):
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(MAX_BYTES * 20)
    files, problems = read(tmp_path)
    assert (len(files[f"{tmp_path}/a.yaml"]), problems) == (MAX_BYTES + 1, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_not_allowed_for_users(tmp_path):
    (tmp_path / "a.yaml").touch(0o000)
    assert "run as a user who may read it" in messages(tmp_path)[1][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
def test_not_allowed():
    """Root may read everything, so this runs as another user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a.yaml").touch(0o600)
        os.seteuid(65534)
        try:
            found = messages(folder)
        finally:
            os.seteuid(0)
    assert found == ([], ["P/a.yaml:1:1: cannot be read (Permission denied); run as a user who may read it"])
