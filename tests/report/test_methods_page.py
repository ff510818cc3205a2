"""docs/methods.md is what the YAMLs and docstrings say today."""

from __future__ import annotations

from pathlib import Path

from adamerge.report.methods_page import methods_page, read_measured
from adamerge.settings import conf_dir

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    page = methods_page(read_measured(DOCS / "mini_table.csv"))
    assert page == (DOCS / "methods.md").read_text(encoding="utf-8"), "run `make docs`"
    for path in (conf_dir() / "method").glob("*.yaml"):
        assert f"### {path.stem}\n" in page
