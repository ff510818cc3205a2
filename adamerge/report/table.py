"""The table of one run: tasks as rows, what it is compared with as columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from adamerge.report.facts import facts_line
from adamerge.report.names import memory, percent, seconds, shown
from adamerge.report.routing import routing_lines
from adamerge.tracking.results import Results, mean

_ORDER = ("pretrained", "weight_average", "task_arithmetic", "run", "individual")
# Two short lines each, so that eight tasks fit into 80 columns.
_HEADS = {
    "pretrained": "Pre-\ntrained",
    "weight_average": "Weight\naverage",
    "task_arithmetic": "Task\narithmetic",
    "run": "This\nrun",
    "individual": "Indi-\nvidual",
}


def columns(results: Results) -> dict[str, dict[str, float | None]]:
    """{column: {task: accuracy}} with the average under "average", in the order shown."""
    own = {task: result.accuracy for task, result in results.tasks.items()} | {"average": results.average}
    found: dict[str, dict[str, float | None]] = {}
    for name in _ORDER:
        if name == "run":
            found[name] = own
        elif name in results.baselines:
            baseline = results.baselines[name]
            found[name] = {**baseline.accuracy, "average": baseline.average}
    return found


def results_table(results: Results) -> RenderableType:
    """Accuracy in percent per task and on average, the agreement with the experts, and the cost."""
    accuracies = columns(results)
    title = f"{results.method} on {results.suite}: accuracy (%)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("task", no_wrap=True)
    for name in accuracies:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    table.add_column("agrees\nwith expert", justify="right", style="dim", no_wrap=True)
    for task in results.tasks:
        table.add_row(task, *_cells(accuracies, task), percent(results.tasks[task].agreement))
    table.add_section()
    table.add_row("average", *_cells(accuracies, "average"), percent(results.agreement), style="bold")
    lines = (
        *choice_lines(results),
        *guard_lines(results),
        *gap_lines(results),
        *unseen_lines(results),
        *attack_lines(results),
        *calibration_lines(results),
        *routing_lines(results),
    )
    extra = [Text(line) for line in (*lines, facts_line(results)) if line]
    return Group(table, *extra, Text(cost_line(results), style="dim"))


def choice_lines(results: Results) -> list[str]:
    """Which scale was chosen, by what, and how good all of them were."""
    if (choice := results.choice) is None:
        return []
    judged = "the experts' estimate" if choice.by == "label_free" else "accuracy"
    images = sorted(set(choice.images.values()))
    number = str(images[0]) if len(images) == 1 else f"{images[0]} to {images[-1]}"
    grid = ", ".join(f"{one.scale:g}: {percent(one.score)}" for one in choice.grid)
    return [
        f"{choice.option}={choice.chosen:g} (instead of {choice.prior:g}) was chosen among {len(choice.grid)} by "
        f"{judged} on {number} images of each task, {choice.split}:",
        f"  {grid}",
    ]


def guard_lines(results: Results) -> list[str]:
    """What the guard kept, and what collapsed on the way."""
    if (guard := results.guard) is None:
        return []
    kept = {
        "start": "the start is kept",
        "best": f"that after round {guard.round} is kept",
        "end": "the end is kept",
    }
    lines = [
        f"guard, estimated accuracy on images held back: start {percent(guard.start)}, best {percent(guard.best)}, "
        f"end {percent(guard.end)} after {results.steps} rounds; {kept[guard.kept]}"
    ]
    names = ", ".join(name.replace("/", " ") for name in guard.collapsed)
    return [*lines, f"collapsed on the way: {names}"] if names else lines


def gap_lines(results: Results) -> list[str]:
    """Accuracy on the images that were adapted on and on the others."""
    if results.gap is None:
        return []
    seen, unseen = percent(results.adapted_average), percent(results.held_out_average)
    what = "part to adapt on" if results.protocol == "none" else "adapted on"
    return [f"test images {what} {seen}, not adapted on {unseen}: gap {100 * results.gap:+.1f}"]


def calibration_lines(results: Results) -> list[str]:
    if results.ece is None or results.nll is None or results.brier is None:
        return []
    return [
        f"calibration: ECE {percent(results.ece)} %, NLL {results.nll:.3f} nats, Brier {results.brier:.3f}"
    ]


def unseen_lines(results: Results) -> list[str]:
    """Accuracy on tasks that no expert was merged for, this run's beside the base's."""
    lines = [
        f"unseen {task}: {percent(result.accuracy)} (pre-trained {percent(result.pretrained)})"
        for task, result in results.unseen.items()
    ]
    base = mean([result.pretrained for result in results.unseen.values()])
    average = f"unseen average: {percent(results.unseen_average)} (pre-trained {percent(base)})"
    return [*lines, average] if lines else []


def attack_lines(results: Results) -> list[str]:
    """How often the trigger makes the model predict its target."""
    return [
        f"attack success on {task}: {percent(attack.success)} (expert {percent(attack.expert)}, weight average "
        f"{percent(attack.weight_average)}, without the trigger {percent(attack.clean)})"
        for task, attack in results.attack.items()
    ]


def _cells(accuracies: dict[str, dict[str, float | None]], row: str) -> list[Text]:
    """One row's numbers; the best of the merged models is marked."""
    merged = {name: column[row] for name, column in accuracies.items() if name != "individual"}
    best = max((value for value in merged.values() if value is not None), default=None)
    return [
        Text(
            percent(column[row]), style="bold green" if best is not None and merged.get(name) == best else ""
        )
        for name, column in accuracies.items()
    ]


def cost_line(results: Results) -> str:
    parts = [
        f"normalized average {percent(results.normalized_average)} % of the experts",
        f"{results.trainable_parameters:,} trained parameters, {results.steps} steps",
        ", ".join(_phase(results, name) for name in results.seconds if name != "load"),
        f"peak memory {memory(results.peak_memory_bytes)} on {results.device}",
    ]
    return "; ".join(part for part in parts if part)


def _phase(results: Results, name: str) -> str:
    """A phase's seconds; of adapting also the share that loading pictures took."""
    used = results.seconds[name]
    text = f"{name} {seconds(used)}"
    loading = results.seconds.get("load", 0.0)
    return f"{text} (loading {loading / used:.0%})" if name == "adapt" and loading and used else text


def to_markdown(results: Results) -> str:
    accuracies = columns(results)
    names = [results.method if name == "run" else shown(name) for name in accuracies]
    lines = [f"| task | {' | '.join(names)} | agreement |", "|---" + "|---:" * (len(names) + 1) + "|"]
    for task, result in results.tasks.items():
        cells = [percent(column[task]) for column in accuracies.values()]
        lines.append(f"| {task} | {' | '.join(cells)} | {percent(result.agreement)} |")
    cells = [percent(column["average"]) for column in accuracies.values()]
    lines.append(f"| **average** | {' | '.join(cells)} | {percent(results.agreement)} |")
    told = [
        line
        for line in (
            *choice_lines(results),
            *guard_lines(results),
            *gap_lines(results),
            *calibration_lines(results),
            facts_line(results),
        )
        if line
    ]
    return "\n".join([*lines, *(f"\n{line}" for line in told)]) + "\n"
