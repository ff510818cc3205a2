"""How methods and numbers are shown, the same in every table and picture."""

from __future__ import annotations

NAMES = {
    "pretrained": "Pre-trained",
    "weight_average": "Weight average",
    "task_arithmetic": "Task arithmetic",
    "individual": "Individual",
    "run": "This run",
}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = {
    "pretrained": "#999999",
    "weight_average": "#56B4E9",
    "task_arithmetic": "#E69F00",
    "run": "#0072B2",
    "individual": "#009E73",
}
# What is evaluated while training, by its key in the journal.
WATCHED = {
    "eval/accuracy": "accuracy",
    "eval/estimate": "accuracy estimated without labels",
    "eval/agreement": "agreement with the experts",
}
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F", "#000000")


def shown(name: str) -> str:
    return NAMES.get(name, name)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def memory(value: int) -> str:
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"
