"""A static merge alone: of an open pool in Python, or from file to file, holding no more than the tensors at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from adamerge.checkpoints.saving import save_stream
from adamerge.errors import PoolError
from adamerge.hints import near
from adamerge.merging import Pool
from adamerge.merging.task_vectors import TaskVectors, merged_tensor
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.rule import Rule
from adamerge.settings import instantiate
from adamerge.settings.components import check_component, component
from adamerge.settings.groups import choices
from adamerge.settings.inherited import inherited
from adamerge.settings.mistakes import Mistakes


def merge(
    pool: Pool, rule: str | Rule = "task_arithmetic", task: str | None = None, **options: Any
) -> dict[str, Tensor]:
    """The state dict (open_clip keys) of a static merge.

    Args:
        pool: the base and its experts.
        rule: the name of a YAML in conf/rule, with its values unless `options` has others; or a rule.
        task: whose encoder, of a rule that keeps one per task (emr, individual).

    Raises:
        PoolError: an unknown name; or a rule with an encoder per task, and no task.
        ConfigError: options that the rule does not have or take.
    """
    return (rule_named(rule, **options) if isinstance(rule, str) else rule)(pool).static(task)


def rule_named(name: str, **options: Any) -> Rule:
    """The rule of a YAML in conf/rule, with its values unless `options` has others.

    Raises:
        PoolError: there is no such YAML.
        ConfigError: options that the rule does not have or take.
    """
    files = choices("rule")
    if name not in files:
        raise PoolError(f"No merging rule '{name}'; {near(name, files)}")
    section: Any = OmegaConf.to_container(OmegaConf.create(inherited(files[name])), resolve=True)
    named = component(section) or {"_target_": f"{TaskArithmetic.__module__}.{TaskArithmetic.__name__}"}
    mistakes = Mistakes()
    check_component("rule", {**named, **options}, mistakes)
    mistakes.report()
    made: Rule = instantiate({**named, **options})
    return made


def write_merged(path: Path, rule: Rule, vectors: TaskVectors, dtype: torch.dtype = torch.float32) -> str:
    """Merge into a safetensors file, tensor by tensor; the same bytes as saving `rule(pool).static()`.

    Args:
        dtype: what a pool of these experts would store the rule's vectors as.

    Returns:
        The file's sha256.

    Raises:
        PoolError: a rule that keeps one encoder per task.
    """
    weights = rule.weights(vectors.names)
    with torch.no_grad():
        changed = rule.prepare(vectors)
    return save_stream(path, vectors.shapes, lambda key: merged_tensor(key, vectors, changed, weights, dtype))
