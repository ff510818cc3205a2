"""The table and the picture of docs/rules.md, from the runs of `experiment=rules_table`.

python -m adamerge.report.rules_page outputs/rules_table docs/rules.svg    # the table is printed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from adamerge.files import make_folder, write_atomically
from adamerge.report.collect import Comparison, Group, collect
from adamerge.report.comparison import table_in_markdown
from adamerge.report.names import memory, percent

_REFERENCES = ("individual", "pretrained")  # what rules lie between


def rules_table(comparison: Comparison) -> str:
    """Every rule, best average first: accuracy and its estimate in percent, seconds from the open experts to the merge,
    the process's peak memory, and the bytes of what predicts."""
    rows = []
    for group in comparison.groups:
        size, peak = group.spread("bytes").mean, group.spread("peak_memory_bytes").mean
        cells = [percent(group.spread(name).mean) for name in ("average", "estimate")]
        told = ["" if value is None else memory(int(value)) for value in (peak, size)]
        rows.append([f"`{group.name}`", *cells, f"{_seconds(group):.0f}", *told])
    return "\n".join(
        table_in_markdown(["rule", "accuracy", "estimate", "seconds", "peak memory", "result"], rows)
    )


def draw(comparison: Comparison, path: Path) -> Path:
    """Accuracy in percent against seconds, one point with its name for each rule."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for group in comparison.groups:
        average = group.spread("average").mean
        if average is not None and group.name not in _REFERENCES:
            place = (_seconds(group), 100 * average)
            axes.plot(*place, "o", color="#0072B2", markersize=4)
            axes.annotate(group.name, place, xytext=(4, 2), textcoords="offset points", fontsize=7)
    axes.margins(x=0.1)
    axes.set(xlim=(0, None), xlabel="seconds to open the experts and merge", ylabel="average accuracy (%)")
    make_folder(path.parent)
    with write_atomically(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return path


def _seconds(group: Group) -> float:
    return group.seconds("prepare").mean or 0.0


def main(words: Sequence[str]) -> None:
    folder, path = map(Path, words)
    (comparison,) = collect([folder]).comparisons
    draw(comparison, path)
    sys.stdout.write(rules_table(comparison) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
