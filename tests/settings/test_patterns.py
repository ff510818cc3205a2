"""Patterns of file names: their placeholders, and braces that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamerge.errors import ConfigError
from adamerge.settings.patterns import fill


@pytest.mark.parametrize(
    "pattern", ["{name}.pt", "{}.pt", "{0}.pt", "a{1}/{task}", "{task.x}", "{task", "a}b"]
)
def test_other_braces_are_named(pattern: str) -> None:
    with pytest.raises(
        ConfigError, match=r"checkpoints.experts: \{.*\} in .* not replaced.*\{task\} is(.|\n)*written twice"
    ):
        fill(pattern, "checkpoints.experts", task="digits")


@given(st.text())
def test_any_name_can_be_written(name: str) -> None:
    written = name.replace("{", "{{").replace("}", "}}")
    assert fill(written + "/{task}", "x", task="{digits}") == name + "/{digits}"
