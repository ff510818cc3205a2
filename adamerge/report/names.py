"""How methods and numbers are shown, the same in every table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def shortest(keys: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of some settings that tell rows apart as well as all of them do: what another one implies is left out,
    the longest words first.

    Args:
        keys: dotted settings that every config has.
    """

    def parts(chosen: Sequence[str]) -> int:
        return len({tuple(repr(config[key]) for key in chosen) for config in configs})

    def length(key: str) -> int:
        return max(len(told([key], config)) for config in configs)

    kept, wanted = list(keys), parts(keys)
    for key in sorted(keys, key=lambda key: (-length(key), key)):
        fewer = [other for other in kept if other != key]
        if parts(fewer) == wanted:
            kept = fewer
    return kept


def told(keys: Sequence[str], config: Mapping[str, Any]) -> str:
    """Settings in a name, each by as many of its last words as tell it from the others."""
    return ", ".join(_setting(key, keys, config[key]) for key in keys)


def _setting(key: str, keys: Sequence[str], value: Any) -> str:
    """A setting by its last word, a component by its class."""
    if key == "rule.name":
        return f"rule={value}"
    words = key.split(".")
    if words[-1] == "_target_":
        words, value = words[:-1], str(value).rpartition(".")[2]
    for count in range(1, len(words) + 1):
        name = ".".join(words[-count:])
        if sum(f".{other.removesuffix('._target_')}".endswith(f".{name}") for other in keys) == 1:
            break
    return f"{name}={value}"
