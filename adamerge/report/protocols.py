"""Tables of the protocols: both parts of a cut test split, calibration, and how methods stand streams as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich import box
from rich.table import Table

from adamerge.report.collect import Comparison, Group, Spread
from adamerge.report.comparison import CALIBRATION, has_gaps, signed, spread, table_in_markdown
from adamerge.tracking.results import INDEPENDENT

Rows = list[tuple[str, list[tuple[str, float | None]]]]  # (method, [(what is shown, the number)])
CALIBRATION_HEADS = ("ECE (%)", "NLL (nats)", "Brier")
GAP_HEADS = ("adapted on", "not adapted on", "gap")


def gap_rows(comparison: Comparison) -> Rows:
    """Accuracy on the images that were adapted on, on the others, and the difference; for whom it is known."""
    return [
        (
            group.name,
            [
                (spread(own), own.mean)
                for own in (group.spread("adapted_average"), group.spread("held_out_average"))
            ]
            + [(_gap(group.spread("gap")), group.spread("gap").mean)],
        )
        for group in comparison.groups
        if group.spread("gap").mean is not None
    ]


def _gap(value: Spread) -> str:
    return signed(value.mean) + ("" if value.sd is None else f" ± {100 * value.sd:.1f}")


def calibration_rows(comparison: Comparison) -> Rows:
    """ECE in percent, NLL in nats and the Brier score, means over tasks and seeds; for whom they are known."""
    return [
        (group.name, [(_number(name, own), own) for name, own in _calibration(group)])
        for group in comparison.groups
        if group.spread(CALIBRATION[0]).mean is not None
    ]


def _calibration(group: Group) -> list[tuple[str, float | None]]:
    return [(name, group.spread(name).mean) for name in CALIBRATION]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if name == "ece" else f"{value:.3f}"


def stream_tables(comparisons: Sequence[Comparison]) -> list[tuple[str, list[str], Rows]]:
    """(title, streams, average of each method in each stream), where there is more than one stream."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        alike[comparison.suite, comparison.backbone, comparison.tasks].append(comparison)
    found = []
    for (suite, backbone, _), members in alike.items():
        # What adapts on nothing has no stream: its one run stands in the independent column.
        ordered = sorted(members, key=lambda member: (member.stream != INDEPENDENT, _order(member.stream)))
        if len(ordered) > 1:
            found.append((f"{suite}, {backbone}", [m.stream for m in ordered], _by_stream(ordered)))
    return found


def _order(stream: str) -> tuple[str, list[float]]:
    """Streams by kind, and by their numbers, the milder first."""
    words = stream.split()
    numbers = [float(word) for word in words if word.replace(".", "", 1).isdigit()]
    kind = " ".join(word for word in words if not word.replace(".", "", 1).isdigit())
    return kind, [-number for number in numbers]


def _by_stream(members: Sequence[Comparison]) -> Rows:
    methods: dict[str, list[tuple[str, float | None]]] = {}
    for column, member in enumerate(members):
        for group in member.groups:
            cells = methods.setdefault(group.name, [("", None)] * len(members))
            average = group.spread("average")
            cells[column] = (spread(average), average.mean)
    return sorted(methods.items(), key=lambda item: -(item[1][0][1] or 0.0))


def protocols_in_markdown(comparison: Comparison) -> str:
    """Both tables of a comparison; empty where nothing is known."""
    text = []
    if has_gaps(comparison):
        text += [
            "",
            "Accuracy on the test images that were adapted on and on the others, and the gap; a static rule's gap",
        ]
        text += ["is how far the two parts differ by themselves.", ""]
        text += _markdown(GAP_HEADS, gap_rows(comparison))
    if rows := calibration_rows(comparison):
        text += [
            "",
            "Calibration: expected calibration error (15 bins), negative log-likelihood, Brier score.",
            "",
        ]
        text += _markdown(CALIBRATION_HEADS, rows)
    return "\n".join(text) + "\n" if text else ""


def stream_console(comparisons: Sequence[Comparison]) -> list[Table]:
    """The streams as a table each, a stream per row: there may be more of them than fit beside each other."""
    found = []
    for title, streams, rows in stream_tables(comparisons):
        table = Table(
            title=f"{title}: average by stream", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("stream", no_wrap=True)
        for name, _ in rows:
            table.add_column(name, justify="right", overflow="fold")
        for column, stream in enumerate(streams):
            table.add_row(stream, *(cells[column][0] for _, cells in rows))
        found.append(table)
    return found


def streams_in_markdown(comparisons: Sequence[Comparison]) -> str:
    text = []
    for title, streams, rows in stream_tables(comparisons):
        text += [f"## {title}: streams", "", "Average after adapting on a stream in that order.", ""]
        text += [*_markdown(streams, rows), ""]
    return "\n".join(text)


def _markdown(heads: Sequence[str], rows: Rows) -> list[str]:
    return table_in_markdown(
        ["method", *heads], [[name, *(text for text, _ in cells)] for name, cells in rows]
    )
