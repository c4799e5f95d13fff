"""The repository is a Space that the Hub takes, and the check of that finds what the Hub would refuse."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from ..tiny import ROOT

spec = importlib.util.spec_from_file_location("check_space", ROOT / "docs" / "check_space.py")
check_space = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_space)

FILES = ("README.md", "requirements.txt", "pyproject.toml", "LICENSE", "app.py")


@pytest.fixture
def copied(tmp_path):
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    parts = Path("pip_core", "ui", "parts")
    shutil.copytree(ROOT / parts, tmp_path / parts)
    return tmp_path


def test_this_repository_is_a_space():
    assert check_space.faults() == []


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("emoji", "emoji: x"),
        ("colorTo", "colorTo: orange"),
        ("sdk", "sdk: docker"),
        ("sdk_version", "sdk_version: 5.0.0"),
        ("sdk_version", "sdk_version: 6.31"),
        ("python_version", "python_version: 3.12"),
        ("app_file", "app_file: main.py"),
        ("short_description", f"short_description: {'long ' * 13}"),
        ("license", "license: mit"),
        ("startup_duration_timeout", "startup_duration_timeout: soon"),
        ("tags", "tags: pruning"),
        ("title", "title: ''"),
        ("hf_oauth", "hf_oauth: false"),
        ("hf_oauth_scopes", "hf_oauth_scopes: [manage-repos]"),
        ("colour", "colour: blue"),
        ("thumbnail", "thumbnail: docs/page.png"),
    ],
)
def test_what_the_hub_would_refuse_is_said(copied, field, line):
    text = (copied / "README.md").read_text(encoding="utf-8")
    without = re.sub(rf"^{field}:.*\n(  - .*\n)*", "", text, count=1, flags=re.M)
    (copied / "README.md").write_text(without.replace("---\n", f"---\n{line}\n", 1), encoding="utf-8")
    found = check_space.faults(copied)
    assert found
    assert all(field in fault for fault in found)


def test_a_missing_field_missing_fields_and_a_torch_that_zerogpu_lacks_are_said(copied):
    text = (copied / "README.md").read_text(encoding="utf-8")
    (copied / "README.md").write_text(text.replace("sdk: gradio\n", ""), encoding="utf-8")
    required = (copied / "requirements.txt").read_text(encoding="utf-8")
    (copied / "requirements.txt").write_text(required.replace("torch>=2.8,", "torch>=2.9,"), encoding="utf-8")
    assert check_space.faults(copied) == [
        "sdk is missing.",
        "requirements.txt does not allow torch 2.8.0, which ZeroGPU has.",
    ]
    (copied / "README.md").write_text(text.partition("---\n\n")[2], encoding="utf-8")
    assert len(check_space.faults(copied)) == 1
