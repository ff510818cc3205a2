"""report.html: whole, self-contained, right in its numbers, and working in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from report.browser import Browser, executable

from adamerge.__main__ import main

TASKS = ("digits", "signs", "scenes")
_VOID = {"meta", "link", "br", "hr", "input", "img"}


def make_run(root: Path, method: str, seed: int, accuracy: float | None, suite: str = "mini") -> Path:
    folder = root / f"{method.replace('/', '_')}-{seed}-{suite}"
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "method": {
            "name": method,
            "objective": {"_target_": "adamerge.losses.Entropy"},
            "optimizer": {"lr": 0.1},
        },
        "rule": {"name": "none"},
        "suite": {"name": suite},
        "backbone": {"name": "small"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    task = {
        "accuracy": accuracy,
        "n": 10,
        "expert": 0.9,
        "pretrained": 0.3,
        "normalized": accuracy,
        "agreement": 0.7,
    }
    shares = dict.fromkeys(TASKS, 0.4 if accuracy is not None else None)
    baselines = {
        name: {"accuracy": shares, "agreement": dict.fromkeys(TASKS, 0.5)}
        for name in ("pretrained", "individual")
    }
    results = {
        "schema": 1, "run_id": "x", "command": "train", "method": method, "rule": "none", "suite": suite,
        "backbone": "small", "seed": seed, "steps": 5, "trainable_parameters": 12, "versions": {}, "device": "cpu",
        "seconds": {"prepare": 1.0, "adapt": 2.0, "evaluate": 3.0}, "peak_memory_bytes": 2**30,
        "tasks": dict.fromkeys(TASKS, task), "baselines": baselines,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    steps = [
        {"step": i, "loss": 3.0 / (1 + i), "loss/digits": 1.0 / (1 + i), "seconds": 0.1} for i in range(30)
    ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    layers = ["visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.weight", "visual.ln_post.weight"]
    table = {"layers": layers, "tasks": list(TASKS), "values": [[0.1 * (seed + 1), 0.2, 0.3]] * 3}
    (folder / "coefficients.json").write_text(json.dumps(table))
    return folder


class Checked(HTMLParser):
    """Notes the tags that do not close, what is loaded from elsewhere, and all text of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loaded: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.loaded.append(value)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An SVG shape without content."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def written(root: Path) -> str:
    main(["compare", str(root), f"out={root / 'out'}"])
    return (root / "out" / "report.html").read_text(encoding="utf-8")


def checked(page: str) -> Checked:
    parser = Checked()
    parser.feed(page)
    return parser


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, accuracy in enumerate((0.61, 0.63)):
        make_run(tmp_path, "surgery", seed, accuracy)
    make_run(tmp_path, "wemoe", 0, 0.55)
    return tmp_path


def test_the_page_is_whole_and_loads_nothing(sweep: Path) -> None:
    page = written(sweep)
    parser = checked(page)
    assert parser.wrong == []
    assert parser.open == []
    assert parser.loaded == []
    assert not re.search(r"url\((?!['\"]?(data:|#))|@import", page)
    for word in ("<h1", "<h2", "<caption", 'scope="row"', 'lang="en"', "Skip to the results", 'role="img"'):
        assert word in page


def test_the_numbers_are_those_of_the_comparison(sweep: Path) -> None:
    cells = checked(written(sweep)).cells
    assert "62.0 ± 1.4" in cells  # of 61 and 63
    assert "55.0" in cells


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>\"'&"
    make_run(tmp_path, name, 0, 0.5)
    page = written(tmp_path)
    assert "<script>alert" not in page
    assert checked(page).wrong == []


def test_without_labels_the_agreement_is_shown(tmp_path: Path) -> None:
    make_run(tmp_path, "surgery", 0, None)
    page = written(tmp_path)
    assert checked(page).wrong == []
    assert "70.0" in checked(page).cells


def test_a_hundred_runs_take_seconds_and_no_torch(tmp_path: Path) -> None:
    for number in range(100):
        make_run(tmp_path, f"method{number // 4}", number % 4, 0.5 + number / 400)
    code = (
        "import sys; from adamerge.__main__ import main; main(['compare', sys.argv[1]]); "
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, timeout=60)
    assert (tmp_path / "report" / "report.html").stat().st_size < 3_000_000


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = executable()
    if program is None:
        pytest.skip("no Chromium or Chrome on this machine")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_it_works_in_a_browser(sweep: Path, browser: Browser) -> None:
    written(sweep)
    browser.open(sweep / "out" / "report.html")
    for scheme in ("light", "dark"):
        browser.media(scheme=scheme)
        for width in (390, 900, 1440):
            browser.resize(width)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, (scheme, width)
    first = "document.querySelector('table.sortable tbody th').textContent"
    browser.evaluate("document.querySelector('table.sortable thead button').focus()")
    browser.press("Enter", "\r")
    ascending = browser.evaluate(first)
    assert (
        browser.evaluate("document.querySelector('table.sortable th').getAttribute('aria-sort')")
        == "ascending"
    )
    browser.press("Enter", "\r")
    assert browser.evaluate(first) != ascending
    shown = "document.querySelector('.switch .panel.current').dataset.panel"
    before = browser.evaluate(shown)
    browser.evaluate(
        "(() => { const s = document.querySelector('select'); s.selectedIndex = 1; "
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    assert browser.evaluate(shown) != before
    assert browser.errors == []
