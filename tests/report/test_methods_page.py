"""docs/methods.md is what the YAMLs and docstrings say today."""

from __future__ import annotations

from pathlib import Path

from adamerge.report.methods_page import methods_page, read_measured
from adamerge.settings.groups import method_names

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    page = methods_page(read_measured(DOCS / "mini_table.csv"))
    assert page == (DOCS / "methods.md").read_text(encoding="utf-8"), "run `make docs`"
    for name in method_names():
        assert f"### {name}\n" in page
