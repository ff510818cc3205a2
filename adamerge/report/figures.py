"""Pictures of one run: loss curves, the table of coefficients, bars per task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from adamerge.files import make_folder, write_atomically
from adamerge.report.collect import flat_config
from adamerge.report.depth import block, depth
from adamerge.report.names import COLORS, CYCLE, WATCHED, shown
from adamerge.report.objectives import loss_label
from adamerge.report.table import columns
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import Results

_DPI = 150


def write_figures(folder: Path, results: Results) -> list[Path]:
    """Draw what the run folder has data for, below `figures/`. Returns the paths."""
    written = []
    records = Journal(folder / "journal.jsonl").read()
    if records:
        config = folder / "config.yaml"
        label = loss_label(results, flat_config(config) if config.exists() else {})
        written.append(loss_curves(records, folder / "figures" / "loss.png", label))
    if any("eval/agreement" in record for record in records):
        written.append(watched_curves(records, folder / "figures" / "evaluation.png"))
    table = folder / "coefficients.json"
    if table.exists():
        written.append(coefficients(json.loads(table.read_text()), folder / "figures" / "coefficients.png"))
    if any(task.accuracy is not None for task in results.tasks.values()):
        written.append(accuracy_bars(results, folder / "figures" / "accuracy.png"))
    return written


def loss_curves(records: Sequence[dict[str, Any]], path: Path, label: str) -> Path:
    """Loss of each task over the steps: raw values faint, a running mean strong.

    A task without a value in a step (no image passed the confidence filter, or it was not finite) has a gap there.
    """
    names = list(dict.fromkeys(key for record in records for key in record if key.startswith("loss/")))
    steps = np.array([record["step"] for record in records])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, color in zip(names, CYCLE * (1 + len(names) // len(CYCLE)), strict=False):
            values = np.array([np.nan if r.get(name) is None else r[name] for r in records], float)
            axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
            axes.plot(
                steps, _running_mean(values), color=color, linewidth=1.6, label=name.removeprefix("loss/")
            )
        axes.set(xlabel="step", ylabel=label, xlim=(steps[0], max(steps[-1], steps[0] + 1)))
        if all((record["loss"] or 0.0) >= 0 for record in records):
            axes.set_ylim(bottom=0)  # an objective of the user's may be negative
        figure.legend(loc="outside right upper", frameon=False)

    return _save(draw, path, (7.5, 3.8))


def watched_curves(records: Sequence[dict[str, Any]], path: Path) -> Path:
    """Accuracy, and agreement and estimate, which need no labels, on a few images while training."""
    watched = [record for record in records if "eval/agreement" in record]
    names = [name for name in WATCHED if any(record.get(name) is not None for record in watched)]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, color in zip(names, CYCLE, strict=False):
            values = [np.nan if record.get(name) is None else 100 * record[name] for record in watched]
            steps = [record["step"] for record in watched]
            axes.plot(steps, values, ".-", color=color, linewidth=1.6, label=WATCHED[name])
        axes.set(xlabel="step", ylabel="on a few images, mean over tasks (%)")
        figure.legend(loc="outside right upper", frameon=False)

    return _save(draw, path, (7.5, 3.8))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of about a twentieth of the run, shorter at the ends; of the values that there are."""
    half = max(1, len(values) // 40)
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))

    def over_window(summands: np.ndarray) -> np.ndarray:
        total = np.cumsum(np.concatenate([[0.0], summands]))
        return total[high] - total[low]

    known = over_window(np.isfinite(values).astype(float))
    with np.errstate(invalid="ignore"):
        return over_window(np.nan_to_num(values)) / known


def coefficients(table: dict[str, Any], path: Path) -> Path:
    """Heat map of the merging coefficients, layers x tasks; bars where there is one row."""
    values = np.array(table["values"])
    draw = _coefficient_bars if len(values) == 1 else _coefficient_map
    height = 3.2 if len(values) == 1 else min(9.0, 2.0 + 0.11 * len(values))
    return _save(lambda figure: draw(figure, values, table["layers"], table["tasks"]), path, (7.0, height))


def _coefficient_bars(figure: Any, values: np.ndarray, layers: list[str], tasks: list[str]) -> None:
    axes = figure.add_subplot()
    bars = axes.bar(range(len(tasks)), values[0], color=COLORS["run"])
    axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_ylabel("merging coefficient")
    axes.axhline(0, color="black", linewidth=0.8)


def _coefficient_map(figure: Any, values: np.ndarray, layers: list[str], tasks: list[str]) -> None:
    order = sorted(range(len(layers)), key=lambda row: depth(layers[row]))
    values, layers = values[order], [layers[row] for row in order]
    axes = figure.add_subplot()
    signed = values.min() < 0
    reach = float(np.abs(values).max()) or 1.0
    image = axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if signed else "viridis",
        vmin=-reach if signed else 0.0,
        vmax=reach,
    )
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    starts = [i for i, name in enumerate(layers) if i and block(name) != block(layers[i - 1])]
    for start in starts:
        axes.axhline(start - 0.5, color="white", linewidth=0.8)
    edges = [0, *starts, len(layers)]
    middles = [(a + b - 1) / 2 for a, b in pairwise(edges)]
    axes.set_yticks(middles, [block(layers[a]) for a in edges[:-1]], fontsize=8)
    axes.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="merging coefficient")


def accuracy_bars(results: Results, path: Path) -> Path:
    """Accuracy per task and on average: references and this run side by side."""
    accuracies = {name: column for name, column in columns(results).items() if name != "weight_average"}
    rows = [*results.tasks, "average"]
    width = 0.8 / len(accuracies)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for index, (name, column) in enumerate(accuracies.items()):
            heights = [np.nan if (share := column[row]) is None else 100 * share for row in rows]
            at = np.arange(len(rows)) + (index - (len(accuracies) - 1) / 2) * width
            label = results.method if name == "run" else shown(name)
            axes.bar(at, heights, width, color=COLORS[name], label=label)
        axes.axvline(len(rows) - 1.5, color="#cccccc", linewidth=0.8)
        axes.set_xticks(range(len(rows)), rows, rotation=30, ha="right")
        axes.set(ylabel="accuracy (%)", ylim=(0, 100))
        figure.legend(loc="outside upper center", ncols=len(accuracies), frameon=False)

    return _save(draw, path, (7.5, 3.8))


def _save(draw: Callable[[Any], None], path: Path, size: tuple[float, float]) -> Path:
    """Draw on a figure of its own (no global state) and write the PNG whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    make_folder(path.parent)
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=_DPI)
    return path
