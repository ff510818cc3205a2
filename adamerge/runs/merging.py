"""A static merge alone: of an open pool in Python, or from file to file, holding no more than the tensors at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from adamerge.checkpoints.saving import save_stream
from adamerge.errors import PoolError
from adamerge.hints import near
from adamerge.merging import Pool
from adamerge.merging.task_vectors import Origin, TaskVectors, about, merged_tensor
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.post import PostRule, followed
from adamerge.rules.rule import Rule
from adamerge.settings import instantiate
from adamerge.settings.components import check_component
from adamerge.settings.groups import choices
from adamerge.settings.inherited import inherited
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.sections import PostSection, RuleSection
from adamerge.statistics.collected import statistics_in_memory


def merge(
    pool: Pool,
    rule: str | Rule = "task_arithmetic",
    task: str | None = None,
    *,
    post: str | PostRule | Sequence[str | PostRule] = (),
    origin: Origin | None = None,
    images: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """The state dict (open_clip keys) of a static merge.

    Args:
        pool: the base and its experts.
        rule: the name of a YAML in conf/rule, with its values unless `options` has others; or a rule.
        task: whose encoder, of a rule that keeps one per task (emr, tall, individual).
        post: what is done behind the rule, one or several: names of YAMLs in conf/post, or post-rules.
        origin: what task vectors start from: the base, or the experts' average; None: as the rule has it.
        images: unlabeled images (n, 3, H, W) of each task, as its expert sees them, for a rule that needs some.

    Raises:
        PoolError: an unknown name; a rule with an encoder per task, and no task; or one without the images it needs.
        ConfigError: options that the rule does not have or take.
    """
    made = rule_named(rule, **options) if isinstance(rule, str) else rule
    several = [post] if isinstance(post, str | PostRule) else post
    made = followed(made, [post_named(each) if isinstance(each, str) else each for each in several])
    statistics = None if made.needs == "nothing" or images is None else statistics_in_memory(pool, images)
    return made(pool, None, origin, statistics).static(task)


def rule_named(name: str, **options: Any) -> Rule:
    """The rule of a YAML in conf/rule, with its values unless `options` has others.

    Raises:
        PoolError: there is no such YAML.
        ConfigError: options that the rule does not have or take.
    """
    named = RuleSection.component_in(_yaml("rule", "merging rule", name))
    made: Rule = _made("rule", {**(named or {"_target_": _target(TaskArithmetic)}), **options})
    return made


def post_named(name: str) -> PostRule:
    """The post-rule of a YAML in conf/post.

    Raises:
        PoolError: there is no such YAML.
    """
    named = PostSection.component_in(_yaml("post", "post-rule", name))
    assert named is not None, "a post-rule's YAML names its class"
    made: PostRule = _made("post", named)
    return made


def _yaml(group: str, what: str, name: str) -> dict[str, Any]:
    files = choices(group)
    if name not in files:
        raise PoolError(f"No {what} '{name}'; {near(name, files)}")
    content: Any = OmegaConf.to_container(OmegaConf.create(inherited(files[name])), resolve=True)
    return dict(content)


def _made(where: str, node: dict[str, Any]) -> Any:
    mistakes = Mistakes()
    check_component(where, node, mistakes, tried=True)
    mistakes.report()
    return instantiate(node)


def _target(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def write_merged(
    path: Path,
    rule: Rule,
    vectors: TaskVectors,
    dtype: torch.dtype = torch.float32,
    origin: Origin | None = None,
) -> str:
    """Merge into a safetensors file, tensor by tensor; the same bytes as saving `rule(pool, dtype, origin).static()`.

    Args:
        dtype: what a pool of these experts would store the rule's vectors as.
        origin: what the task vectors start from; None: the rule's own.

    Returns:
        The file's sha256.

    Raises:
        PoolError: a rule that keeps one encoder per task, or that needs images.
    """
    weights = rule.weights(vectors.names)
    vectors = about(vectors, rule.origin if origin is None else origin)
    with torch.no_grad():
        changed = rule.prepare(vectors)
    return save_stream(path, vectors.shapes, lambda key: merged_tensor(key, vectors, changed, weights, dtype))
