"""Options that are made from the settings of a recipe, and switches that are written out."""

from __future__ import annotations

import pytest

from pip_core.cli.main import given_settings, main
from pip_core.cli.options import read, split_switches
from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.core.settings import SettingInfo

SWITCH = SettingInfo("mend", "s", "S", "switch", "auto", "", "true or false or auto")
SWITCHES = [SWITCH, SettingInfo("plain", "s", "S", "switch", True, "", "true or false")]


@pytest.mark.parametrize(
    ("words", "rest", "values"),
    [
        (["--mend"], ["--mend"], {}),
        (["--no-mend"], ["--no-mend"], {}),
        (["--mend", "true"], [], {"mend": True}),
        (["--mend", "False"], [], {"mend": False}),
        (["--mend=auto", "--plain", "false"], [], {"mend": "auto", "plain": False}),
        (["--mend", "run", "--plain"], ["--mend", "run", "--plain"], {}),
        (["--mend", "true", "--no-mend"], ["--no-mend"], {}),
        (["--no-mend", "--other", "x", "--mend=true"], ["--other", "x"], {"mend": True}),
        (["--mend", "auto", "--mend", "false"], [], {"mend": False}),
        (["--", "--mend", "true"], ["--", "--mend", "true"], {}),
        (["--mended", "true"], ["--mended", "true"], {}),
    ],
)
def test_switches_that_are_written_out(words, rest, values):
    assert split_switches(words, SWITCHES) == (rest, values)


@pytest.mark.parametrize("word", ["--mend=maybe", "--no-mend=true", "--mend="])
def test_a_switch_takes_no_other_value(word):
    with pytest.raises(UserError, match="Mend: enter true or false or auto"):
        split_switches([word], SWITCHES)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("whole", "3", 3),
        ("whole", "3.5", "3.5"),
        ("number", "3", 3.0),
        ("number", "auto", "auto"),
        ("names", "a, b,", ("a", "b")),
        ("names", ",", ()),
        ("numbers", "3, 17", (3, 17)),
        ("numbers", "first", "first"),
        ("text", " x", " x"),
    ],
)
def test_values_are_brought_into_their_type_and_no_further(kind, text, value):
    found = read(SettingInfo("n", "s", "S", kind, "", "", ""), text)
    assert found == value
    assert type(found) is type(value)


def test_a_share_may_be_given_in_percent():
    share = SettingInfo("n", "s", "S", "number", 0.2, "", "", share=True)
    assert (read(share, "30%"), read(share, "x%")) == (0.3, "x%")
    assert read(SettingInfo("n", "s", "S", "number", 3, "", ""), "30%") == "30%"


@pytest.mark.parametrize("command", ["prune", "compare"])
def test_every_setting_is_an_option(command):
    words = [command, "--out=x"]
    for info in Recipe.settings():
        value = "3" if info.kind in ("whole", "number", "numbers") else "auto"
        words += [info.option, value]
    given = given_settings(words)
    assert set(given) == set(Recipe.describe())
    assert all(given[info.name] == "auto" for info in Recipe.settings() if info.kind == "switch")


def test_only_what_is_given_is_given():
    assert given_settings(["prune", "--out=x"]) == {}
    assert given_settings(["fork", "run", "--out=x", "--seed", "7", "--no-refit"]) == {
        "seed": 7,
        "refit": False,
    }


def test_what_a_value_may_be_is_said_by_the_recipe(capsys, tmp_path):
    for words, name in ((["--windows", "many"], "Windows"), (["--keep", "first"], "Keep")):
        assert main(["prune", "--out", str(tmp_path / "run"), *words]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: {name}: enter ")
        assert repr(words[1]) in line
