"""The page in a real browser: fits every width, works by keyboard, says nothing on the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report.browser import NAMES, Browser, executable
from report.runs import write_representations, write_run

from adamerge.report.collect import collect
from adamerge.report.html.page import page

pytestmark = pytest.mark.skipif(
    executable() is None, reason=f"no headless browser: none of {', '.join(NAMES)} is on the PATH"
)

WIDTHS = (390, 900, 1440)
ROWS = "[...document.querySelector('table.sortable').tBodies[0].rows]"


def visible(selector: str) -> str:
    """JavaScript for the elements that can be seen."""
    return f"[...document.querySelectorAll('{selector}')].filter((element) => element.checkVisibility())"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    long = "a_method_whose_name_is_longer_than_any_column_can_be_" * 3
    for i, name in enumerate(("surgery", "ties", "wemoe", "emr", "twin", "dam", long)):
        for seed in range(2):
            write_run(root, name, seed, 0.9 - 0.05 * i + 0.01 * seed, rank=i)
    write_representations(write_run(root, "surgery", 5, 0.9, rank=99))
    path = root / "report.html"
    path.write_text(page(collect([root])))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = executable()
    assert program
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def shown(browser: Browser, report: Path) -> Browser:
    browser.errors.clear()
    browser.resize(1440)
    browser.media()
    browser.open(report)
    return browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_body_never_scrolls_sideways(shown: Any, report: Any, width: Any, scheme: str) -> None:
    shown.resize(width)
    shown.media("screen", scheme)
    shown.open(report)
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    edges = "[...document.querySelectorAll('figure, .scroll, .picker')].map((e) => e.getBoundingClientRect().right)"
    assert max(shown.evaluate(edges)) <= width + 1
    assert shown.errors == []


def test_dark_ground_where_it_is_asked_for(shown: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = shown.evaluate(ground)
    shown.media("screen", "dark")
    assert shown.evaluate(ground) != light
    shown.media("print", "dark")
    assert shown.evaluate(ground) == light


def test_a_table_is_sorted_by_keyboard(shown: Any) -> None:
    column = f"{ROWS}.map((row) => Number(row.cells[1].dataset.v))"
    head = "document.querySelectorAll('table.sortable thead th')[1]"
    shown.evaluate(f"{head}.querySelector('button').focus()")
    shown.press("Enter", "\r")
    assert shown.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
    values = shown.evaluate(column)
    assert values == sorted(values, reverse=True)
    shown.press(" ", " ")
    assert shown.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert shown.evaluate(column) == values[::-1] == sorted(values)
    assert shown.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
    assert shown.errors == []


def test_what_is_not_known_is_sorted_to_the_end(shown: Any) -> None:
    rows = f"{ROWS}.map((row) => row.cells[2].dataset.v ?? null)"
    for _ in range(2):
        shown.evaluate("document.querySelectorAll('table.sortable thead button')[2].click()")
        values = shown.evaluate(rows)
        assert values.index(None) == len([v for v in values if v is not None])


def test_the_map_changes_with_the_method(shown: Any) -> None:
    current = f"{visible('.switch svg')}.map((svg) => svg.getAttribute('aria-label'))"
    before = shown.evaluate(current)
    shown.evaluate("document.querySelector('.switch select').focus()")
    shown.press("ArrowDown")
    after = shown.evaluate(current)
    assert len(before) == len(after) == 2  # one map, one cloud
    assert before[0] != after[0]
    assert shown.evaluate("document.querySelector('.switch option:checked').textContent") in after[0]


def test_a_picked_method_gets_a_colour_of_its_own(shown: Any) -> None:
    shown.evaluate("document.querySelector('.picker').open = true")
    lines = f"{visible('.pick.line')}.map((line) => getComputedStyle(line).stroke)"
    before = shown.evaluate(lines)
    shown.evaluate("document.querySelector('.picker input:not(:checked)').focus()")
    shown.press(" ", " ")
    after = shown.evaluate(lines)
    assert len(after) == len(set(after)) == len(before) + 1
    names = "document.querySelectorAll('.charts .legend')[0].innerText.trim().split('\\n').length"
    assert shown.evaluate(names) == len(after)
    shown.evaluate("document.querySelector('[data-pick=none]').click()")
    assert shown.evaluate(lines) == []
    assert shown.evaluate("document.querySelector('.picker output').textContent").startswith("0 of")
    assert shown.errors == []


def test_names_beside_points_do_not_cover_each_other(shown: Any) -> None:
    covering = """[...document.querySelectorAll('svg:has(.point)')].map((svg) => {
        const boxes = [...svg.querySelectorAll('.point:not(.off) .beside')].map((name) => name.getBBox());
        return boxes.some((a, i) => boxes.slice(i + 1).some((b) =>
            a.x < b.x + b.width && b.x < a.x + a.width && a.y + 1 < b.y + b.height && b.y + 1 < a.y + a.height));
    })"""
    assert shown.evaluate(covering) == [False, False, False]


def test_everything_is_there_without_the_script(shown: Any, report: Any) -> None:
    shown.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        shown.open(report)
        # The debugger may still look, only the page's own script is off.
        assert shown.evaluate("document.documentElement.className") == ""
        pictures = "figure > svg, .scroll:not(details .scroll)"
        every = shown.evaluate(f"document.querySelectorAll('{pictures}').length")
        assert shown.evaluate(f"{visible(pictures)}.length") == every > 15
        assert shown.evaluate("document.querySelector('select').checkVisibility()") is False
    finally:
        shown.send("Emulation.setScriptExecutionDisabled", value=False)


def test_on_paper_there_are_no_controls_and_tables_are_whole(shown: Any, report: Any) -> None:
    shown.media("print")
    controls = (
        "[...document.querySelectorAll('.picker, select, .skip')].filter((e) => e.checkVisibility()).length"
    )
    assert shown.evaluate(controls) == 0
    assert shown.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
