"""A preset as a run meets it: every option of its method and rule with its value, those of the classes included."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from adamerge.rounds.schedule import Schedule
from adamerge.settings import instantiate
from adamerge.settings.components import find_target
from adamerge.settings.sections import RuleSection

# What every preset is composed with unless a row says otherwise: the papers' eight tasks and files.
HOME = ("suite=eight", "backbone=vit_b_32", "checkpoints=task_vectors")
_WORDS = ("name", "summary", "paper", "needs", "trains", "memory")
_OPTIMIZER = (
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "amsgrad",
    "maximize",
    "momentum",
    "dampening",
    "nesterov",
)
Flat = dict[str, Any]


def composed(*words: str) -> DictConfig:
    """The config of `train` with these words, inside `opened`."""
    return compose("train", [*HOME, *words])


def options(cfg: DictConfig) -> Flat:
    """{"model.rank": 16, "optimizer.betas": [0.9, 0.999], "schedule.steps": 500, "rule.top_k": 0.2, ...}."""
    method: Any = OmegaConf.to_container(cfg.method, resolve=True)
    rule: Any = OmegaConf.to_container(cfg.rule, resolve=True)
    flat: Flat = {"rule": rule["name"], **_component("rule", RuleSection.component_in(rule))}
    flat |= {f"rule.{key}": rule[key] for key in ("adapt_on", "images") if key in rule}
    for key, value in method.items():
        if key == "optimizer":
            flat |= _optimizer(value)
        elif key == "schedule":
            flat |= {} if value is None else _nested(key, vars(Schedule(**value)))
        elif key not in _WORDS:
            flat |= _component(key, value)
    return flat


def _component(where: str, node: Any) -> Flat:
    """The options of a component over the defaults of its class."""
    if not isinstance(node, Mapping):
        return {} if node is None else {where: node}
    target = find_target(node["_target_"])
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    return {f"{where}.class": target.__name__, **_nested(where, {**_defaults(target), **given})}


def _nested(where: str, values: Mapping[str, Any]) -> Flat:
    found: Flat = {}
    for key, v in values.items():
        if isinstance(v, Mapping) and "_target_" in v:
            found |= _component(f"{where}.{key}", v)
        else:
            found[f"{where}.{key}"] = list(v) if isinstance(v, tuple) else v
    return found


def _defaults(target: Any) -> Flat:
    """Of every constructor that the class's options reach, through the bases that it hands **options on to."""
    if not inspect.isclass(target):
        parameters = inspect.signature(target).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}
    found: Flat = {}
    for base in inspect.getmro(target):
        if "__init__" not in vars(base) or not base.__module__.startswith("adamerge."):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        for p in parameters:
            if p.default is not p.empty:
                found.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _optimizer(node: Any) -> Flat:
    """As the optimiser itself has them, torch's own defaults included."""
    if node is None:
        return {"optimizer.class": None}
    made = instantiate(node)([torch.nn.Parameter(torch.zeros(1))])
    known = {key: made.defaults[key] for key in _OPTIMIZER if key in made.defaults}
    return {"optimizer.class": type(made).__name__, **_nested("optimizer", known)}
