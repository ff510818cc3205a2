"""The page of `compare`: sound HTML, the numbers of the comparison, no way in for hostile names, fast without torch."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report.runs import LAYERS, OBJECTIVES, TASKS, write_representations, write_run

from adamerge.report.collect import Collected, collect
from adamerge.report.comparison import lines, spread
from adamerge.report.html.artifacts import POINTS, read_artifacts
from adamerge.report.html.markup import Markup, tag
from adamerge.report.html.page import page
from adamerge.report.html.scale import linear, logarithmic
from adamerge.report.html.view import View

VOID = ("meta", "link", "input", "br")


class Page(HTMLParser):
    """Checks that tags are balanced; gathers the tables, the attributes and the text of every element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name: Any, attributes: Any) -> None:
        assert len(dict(attributes)) == len(attributes), "an attribute twice"
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
        elif name in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, name: Any) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: Any) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if "th" in self.open or "td" in self.open:
            self.tables[-1][-1][-1] += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == name]

    def words(self, name: str) -> list[str]:
        return [data for found, data in self.texts if found == name]


@pytest.fixture
def found(tmp_path: Path) -> Collected:
    for seed, accuracy in enumerate((0.6, 0.7, 0.8)):
        write_run(tmp_path, "surgery", seed, accuracy, objective="Alignment", rank=16)
    write_run(tmp_path, "surgery", 0, 0.55, objective="Alignment", rank=4)
    write_run(tmp_path, "adamerging", 1, 0.85)
    return collect([tmp_path])


def test_the_page_is_sound_and_loads_nothing(found: Any) -> None:
    text = page(found)
    parsed = Page(text)
    assert not re.search(r"""(src|href|action|xlink:href)=["']?\s*(https?:)?//""", text)
    assert not re.search(r"url\(|@import|<(iframe|object|embed|img)\b", text)
    hrefs = [a["href"] for name in ("a", "link") for a in parsed.all(name)]
    assert all(href.startswith(("#", "data:image/svg+xml,")) for href in hrefs)
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in hrefs if href[0] == "#"} <= set(ids)


def test_it_can_be_read_by_ear(found: Any) -> None:
    parsed = Page(page(found))
    assert parsed.all("html") == [{"lang": "en"}]
    assert all(
        "aria-hidden" in a or (a.get("role") == "img" and a.get("aria-label")) for a in parsed.all("svg")
    )
    assert all(a.get("scope") in ("col", "row") for a in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert len(parsed.all("figcaption")) == len(parsed.all("figure")) > 5
    labelled = {a["for"] for a in parsed.all("label") if "for" in a}
    assert labelled == {a["id"] for a in parsed.all("select")}
    levels = [int(name[1]) for name, _ in parsed.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_the_table_has_the_numbers_of_the_comparison(found: Any) -> None:
    (comparison,) = found.comparisons
    head, *rows = Page(page(found)).tables[0]
    assert head == ["method", "average", "normalised", "agreement", *TASKS, "seeds"]
    for row, line in zip(rows, lines(comparison), strict=True):
        assert row[0] == line.name
        assert [row[1], *row[4:-1]] == [spread(value) for value in line.values]
    by_name = {row[0]: row for row in rows}
    assert by_name["surgery (rank=16)"][1:4] == ["68.5 ± 10.0", "76.1", "50.0"]
    assert by_name["surgery (rank=16)"][-1] == "3"
    assert by_name["Individual"][1:4] == ["90.0", "–", "90.0"]


def test_the_best_are_bold_among_as_many_seeds_and_never_the_experts(found: Any) -> None:
    strong = Page(page(found)).words("strong")
    # Of surgery's three seeds: adamerging's one seed has more (83.5), and the experts have 90.
    assert strong == [f"{value} ± 10.0" for value in ("68.5", "70.0", "69.0", "68.0", "67.0")]


def test_settings_that_differ_are_listed(found: Any) -> None:
    (table,) = (t for t in Page(page(found)).tables if t[0][0] == "setting")
    rows = {row[0]: row[1:] for row in table}
    assert rows["setting"] == ["adamerging", "surgery (rank=16)", "surgery (rank=4)"]
    assert rows["method.model.rank"] == ["", "16", "4"]
    assert "suite.name" not in rows


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = """<script>alert(1)</script>"'&</style><img src=x>"""
    write_run(tmp_path, name, tasks=("<b>", "</script>", '"onload="', "x"), suite="</title>", layers=["<i>"])
    write_representations(
        write_run(tmp_path, "b", tasks=("<b>", "</script>", '"onload="', "x"), suite="</title>")
    )
    text = page(collect([tmp_path]))
    parsed = Page(text)
    assert len(parsed.all("script")) == 1
    assert not parsed.all("img") + parsed.all("b") + parsed.all("i")
    assert not any("onload" in attributes for _, attributes in parsed.elements)
    assert [row[0] for row in parsed.tables[0]].count(name) == 1


def test_without_labels_the_agreement_is_compared(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "surgery", seed, None)
    parsed = Page(page(collect([tmp_path])))
    head, *rows = parsed.tables[0]
    assert head == ["method", "average", *TASKS, "seeds"]
    assert rows[-1] == ["surgery", *["50.0 ± 0.0"] * 5, "2"]
    assert "Agreement and cost" in parsed.words("h3")


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "ties", tasks=("digits",))
    for name in ("journal.jsonl", "coefficients.json"):
        (folder / name).unlink()
    heads = Page(page(collect([tmp_path]))).words("h3")
    assert heads == ["Results", "Average and tasks", "Accuracy and cost", "Cost"]
    write_representations(folder)
    assert "Representation bias" in Page(page(collect([tmp_path]))).words("h3")


def test_damaged_and_unfinished_runs_are_named_without_the_machine_s_folders(tmp_path: Path) -> None:
    first = write_run(tmp_path, "a")
    (first / "coefficients.json").write_text('{"layers": ["x"], "tasks": [], "values": [[1]]}')
    (write_run(tmp_path, "b") / "journal.jsonl").write_text("[1]\n")
    (write_run(tmp_path, "c") / "results.json").unlink()
    (write_run(tmp_path, "d") / "results.json").write_text("{")
    text = page(collect([tmp_path]))
    left = [t for t in Page(text).words("code") if t.startswith("run-")]
    assert left == ["run-002", "run-003", "run-000/coefficients.json", "run-001/journal.jsonl"]
    assert str(tmp_path) not in text


def test_only_unfinished_runs_give_a_page_too(tmp_path: Path) -> None:
    (write_run(tmp_path, "c") / "results.json").unlink()
    assert "no finished run" in "".join(Page(page(collect([tmp_path]))).words("h1"))


def test_each_suite_has_a_section(tmp_path: Path) -> None:
    for suite in ("mini", "mini, jpeg 2"):
        write_run(tmp_path, "surgery", suite=suite)
    parsed = Page(page(collect([tmp_path])))
    assert parsed.words("h2") == ["mini, small, 4 tasks", "mini, jpeg 2, small, 4 tasks"]


def test_layers_are_in_the_order_of_depth_and_means_are_over_seeds(found: Any) -> None:
    (group,) = (g for g in found.comparisons[0].groups if len(g.runs) == 3)
    table = read_artifacts(group, []).coefficients
    assert table.layers == [LAYERS[1], LAYERS[3], LAYERS[2], LAYERS[0], LAYERS[4]]
    assert table.seeds == 3
    assert table.values[0][1] == pytest.approx(0.1 + 0.03 + 0.01)  # of seeds 0, 1, 2


def test_curves_are_the_mean_over_tasks_in_few_points(tmp_path: Path) -> None:
    write_run(tmp_path, "a", steps=1001)
    (group,) = collect([tmp_path]).comparisons[0].groups
    curve = read_artifacts(group, []).curve
    assert 100 < len(curve) <= POINTS
    expected = [sum(1 / (i + 1 + j) for j in range(4)) / 4 for i in range(6)]
    assert curve[0] == pytest.approx((2.5, sum(expected) / 6))


def test_every_objective_gets_a_colour_at_first(tmp_path: Path) -> None:
    for i in range(7):
        write_run(tmp_path, f"m{i}", 0, 0.9 - 0.1 * i, objective="Entropy" if i < 6 else "Alignment")
    (comparison,) = collect([tmp_path]).comparisons
    assert View.of(comparison, "s").picked == (0, 1, 2, 3, 6)


def test_losses_of_different_objectives_have_charts_and_axes_of_their_own(found: Any) -> None:
    text = page(found)
    for name in OBJECTIVES.values():
        assert f"Line chart: {name} over the steps" in text


def test_axes_have_round_ticks() -> None:
    assert linear([0.13, 0.87], 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert linear([5.0], 0, 100).at(5.0) == pytest.approx(50)
    axis = logarithmic([0, 8, 448, 2_000_000], 0, 100)
    assert axis.ticks()[:2] == [0, 1]
    assert axis.at(0) == 0 < axis.at(8) < axis.at(448) < axis.at(2_000_000) <= 100


def test_markup_is_escaped_once() -> None:
    assert tag("p", "a<b", Markup("<br>"), title='"') == '<p title="&quot;">a&lt;b<br></p>'
    assert tag("input", checked=True, disabled=False, data_m=0) == '<input checked data-m="0">'


def test_a_hundred_runs_take_seconds_and_no_torch(tmp_path: Path) -> None:
    layers = [f"visual.transformer.resblocks.{i // 12}.part{i % 12}" for i in range(144)]
    for i in range(100):
        write_run(
            tmp_path,
            f"method {i}",
            accuracy=0.5 + 0.001 * i,
            tasks=range_of_tasks(8),
            layers=layers,
            steps=500,
        )
    code = (
        "import sys; from adamerge.__main__ import main; main(sys.argv[1:]);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'hydra')))"
    )
    # The process's own time: what else the machine is doing must not count.
    before = _processor_seconds()
    subprocess.run(
        [sys.executable, "-c", code, "compare", str(tmp_path)], check=True, stdout=subprocess.DEVNULL
    )
    assert _processor_seconds() - before < 5
    path = tmp_path / "report" / "report.html"
    assert path.stat().st_size < 3 * 2**20
    assert len(Page(path.read_text()).all("option")) == 100


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def range_of_tasks(count: int) -> list[str]:
    return [f"task {i}" for i in range(count)]


def test_no_value_that_is_not_finite_reaches_a_picture(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a")
    (folder / "journal.jsonl").write_text(json.dumps({"step": 0, "loss": None, "loss/digits": None}) + "\n")
    (folder / "coefficients.json").write_text('{"layers": ["a"], "tasks": ["b"], "values": [[NaN]]}')
    text = page(collect([tmp_path]))
    assert "not finite" in text
    assert "nan" not in re.sub(r"<(style|script).*?</\1>", "", text, flags=re.S).lower()


def test_the_page_says_when_and_with_what_it_was_made(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "surgery", seed, 0.5)
    for path, (day, changed) in zip(
        sorted(tmp_path.rglob("results.json")), (("2026-03-02", False), ("2026-03-01", True)), strict=True
    ):
        note = {"started": f"{day}T10:00:00+00:00", "host": "h", "process": 1, "command": None}
        note |= {"python": "3.12.1", "system": "s", "checkout": {"commit": "abc" * 13, "changed": changed}}
        (path.parent / "provenance.json").write_text(json.dumps({"sittings": [note]}))
    (run, *_) = collect([tmp_path]).comparisons[0].groups[0].runs
    words = Page(page(collect([tmp_path]))).words("dd")
    assert "2026-03-01 to 2026-03-02" in words
    assert run.results.device in words
    (versions,) = (word for word in words if "Python 3.12.1" in word)
    assert all(f"{name} {value}" in versions for name, value in run.results.versions.items())
    (code,) = (word for word in words if word.startswith("commit "))
    assert sorted(code.split(" or ")) == ["commit abcabcabcabc", "commit abcabcabcabc, changed"]
