"""The options of `evaluate run=<folder> ...`: laid over the run's own config, or refused by name.

What made the model (method, rule, experts, seed) cannot change any more; what it is evaluated on can.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from adamerge.commands.composed import find_mistakes_in
from adamerge.commands.overrides import Typed
from adamerge.settings.inherited import inherited
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import conf_dir

# Each applies to the test pictures, or to how they are run through the model.
APPLY = (
    *("suite.data", "suite.tasks", "suite.unseen", "suite.corruption", "suite.severity", "suite.strengths"),
    *("suite.limit", "suite.validation", "suite.decode_cache", "suite.catalogue", "evaluation.batch_size"),
    "evaluation.keep_predictions",
    *("trainer", "trainer.accelerator", "routing", "out"),
)
# Pictures that the run did not adapt on, whatever it adapted on.
OTHER_PICTURES = (
    *("suite.data", "suite.catalogue", "suite.validation", "suite.corruption", "suite.severity"),
    "suite.strengths",
)
# They change which picture has which number, and with it how the test split is cut.
_RENUMBER = ("suite.data", "suite.catalogue", "suite.validation", "suite.limit")


def is_among(option: Typed, names: Sequence[str]) -> bool:
    """Whether an option is one of these, or lies below one."""
    return any(option.key == name or option.key.startswith(f"{name}.") for name in names)


def with_options(cfg: DictConfig, typed: Sequence[Typed], mistakes: Mistakes) -> DictConfig:
    """The run's config with what was typed; every option that does not apply is noted.

    Args:
        cfg: the config of the run, resolved.
        typed: the options beside `run`.
    """
    changed: DictConfig = cfg.copy()
    with open_dict(changed):
        for option in typed:
            if option.sweeps:
                mistakes.add(option.key, "has several values; a run is evaluated on one thing at a time.")
            elif (why := _why_not(option, cfg)) is not None:
                mistakes.add(option.key, why)
            elif option.key != "out":
                _apply(option, changed, mistakes)
        if any(o.key == "suite.severity" for o in typed) and not changed.suite.get("corruption"):
            mistakes.add("suite.severity", "nothing is corrupted; give suite.corruption=... as well.")
        attack = changed.get("attack")
        if attack and attack.get("tasks"):
            attack.tasks = [task for task in attack.tasks if task in changed.suite.tasks]
    if not mistakes.lines:
        find_mistakes_in(changed, "train", mistakes)
    if not mistakes.lines:
        _check_tasks(cfg, changed, mistakes)
    return changed


def _why_not(option: Typed, cfg: DictConfig) -> str | None:
    """Why an option cannot apply; None where it can."""
    known = is_among(option, [name for name in APPLY if name != "trainer"])
    if (known or option.key == "trainer") and not option.deletes:
        return _why_not_cut(cfg) if is_among(option, _RENUMBER) else None
    now = OmegaConf.select(cfg, option.key)
    if isinstance(now, DictConfig):
        now = now.get("name")
    made = f"it was made with {option.key}={now}" if now is not None else "it was made without it"
    if isinstance(now, ListConfig):
        made = f"it was made with {option.key}={list(now)}"
    return f"cannot apply to a finished run; {made}. What applies: {', '.join(APPLY)}."


def _why_not_cut(cfg: DictConfig) -> str | None:
    """Of a run that adapted on a part of its test split: the other part is known by its pictures' numbers."""
    suite = cfg.suite
    if OmegaConf.is_dict(suite.get("adapt_on")) or suite.get("adapt_images") is not None:
        return (
            "cannot apply: the run adapted on a part of its test pictures (suite.adapt_on, suite.adapt_images), and "
            "which part that was is not known of other pictures."
        )
    return None


def _apply(option: Typed, cfg: DictConfig, mistakes: Mistakes) -> None:
    if option.key == "trainer":  # a choice of the group: nothing of it but the device is used here
        path = conf_dir() / "trainer" / f"{option.value}.yaml"
        if not path.exists():
            mistakes.add("trainer", f"no trainer '{option.value}'; give trainer.accelerator=cpu or gpu.")
            return
        cfg.trainer.accelerator = inherited(path)["accelerator"]
    elif option.key == "suite.data":
        _move(cfg, str(option.value), mistakes)
    else:
        try:
            OmegaConf.update(cfg, option.key, option.value, force_add=True)
        except OmegaConfBaseException as error:
            mistakes.add(option.key, str(error).splitlines()[0])


def _move(cfg: DictConfig, data: str, mistakes: Mistakes) -> None:
    """Another folder of pictures. A run's config is resolved, so the old folder stands in the sources as well."""
    old = cfg.suite.get("data")
    catalogue = OmegaConf.to_container(cfg.suite.catalogue)
    moved, count = _replaced(catalogue, None if old is None else str(old), data)
    if not count:
        mistakes.add("suite.data", f"the suite {cfg.suite.name} reads its pictures from no folder.")
        return
    cfg.suite.catalogue = moved
    cfg.suite.data = data


def _replaced(node: Any, old: str | None, new: str) -> tuple[Any, int]:
    """The node with `old` replaced where it is a text, or the beginning of a path; and how often it was."""
    if isinstance(node, dict):
        parts = {key: _replaced(value, old, new) for key, value in node.items()}
        return {key: part for key, (part, _) in parts.items()}, sum(n for _, n in parts.values())
    if isinstance(node, list):
        found = [_replaced(value, old, new) for value in node]
        return [part for part, _ in found], sum(n for _, n in found)
    if old is not None and isinstance(node, str) and (node == old or node.startswith(old + os.sep)):
        return new + node[len(old) :], 1
    return node, 0


def _check_tasks(cfg: DictConfig, changed: DictConfig, mistakes: Mistakes) -> None:
    """A run has parts and heads of its own tasks only."""
    for kind in ("tasks", "unseen"):
        own = list(cfg.suite.get(kind) or ())
        for task in changed.suite.get(kind) or ():
            if task not in own:
                has = f"it has {', '.join(own)}" if own else "it has none"
                mistakes.add(f"suite.{kind}", f"the run does not know '{task}'; {has}.")
