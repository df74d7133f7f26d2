"""Errors of Hydra in one line that says what to do."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from metagen.config.compose import compose
from metagen.config.error_lines import explain


def line(*words):
    with pytest.raises(Exception, match=r".") as error:
        compose(words)
    found = explain(error.value, words)
    assert found.code == 2
    assert "\n" not in found.text
    return found.text


def test_several_values_ask_for_a_sweep():
    assert "metagen train -m" in line("seed=0,1")
    assert "seed=[0,1]" in line("seed=0,1")


@pytest.mark.parametrize("value", ["李明", "a#1", "it's", 'say "x"', "a$b'c", "back\\slash'"])
def test_the_quotes_that_are_proposed_make_it_readable(value):
    text = line(f"hydra.run.dir={value}")
    (proposed,) = shlex.split(text.partition("characters: ")[2])
    assert OverridesParser.create().parse_override(proposed).value() == value
