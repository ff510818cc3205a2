"""The rule of a run: with its post-rules, the images that it sees, and what makes no sense with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from adamerge.errors import ConfigError
from adamerge.models.coefficient_files import read_table, start_file
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.post import Learned, PostRule, followed
from adamerge.rules.rule import Rule
from adamerge.runs.images import suite_adapts_on
from adamerge.settings import instantiate
from adamerge.settings.commands import PoolSettings, RunSettings
from adamerge.settings.sections import AdaptSplit, PostSection, RuleSection
from adamerge.tasks.protocol import AdaptOn

_PRIOR = 0.3  # what method YAMLs start from where a suite has no prior


def rule_of(settings: PoolSettings) -> Rule:
    """The rule that the settings name, with the post-rules behind it; task arithmetic where they name none.

    Raises:
        ConfigError: options of images for a rule that looks at none.
        PoolError: a post-rule behind a rule that keeps one encoder per task.
    """
    named = settings.rule.component
    rule: Rule = arithmetic(settings) if named is None else instantiate(named)
    posts: dict[str, PostRule] = {name: instantiate(post.component) for name, post in settings.post.items()}
    first = _merges_first(settings, list(posts.values()))
    made = followed(rule, list(posts.values())[:first])
    if first is not None:
        made = followed(_at_start(settings, made), list(posts.values())[first:])
    _refuse_unused(settings, {"rule": rule, **{f"post.{name}": post for name, post in posts.items()}})
    return made


def starts_below(settings: PoolSettings) -> bool:
    """Whether the coefficients of `start` are of the merge that a post-rule goes on from, not of what it gives."""
    return (
        _merges_first(settings, [instantiate(post.component) for post in settings.post.values()]) is not None
    )


def _merges_first(settings: PoolSettings, posts: Sequence[PostRule]) -> int | None:
    """The place of the first post-rule that gives one delta of a merge with the coefficients of `start`; None: there
    is no start, or no such post-rule."""
    if settings.start is None:
        return None
    return next((place for place, post in enumerate(posts) if post.merges), None)


def _at_start(settings: PoolSettings, rule: Rule) -> Rule:
    """The rule's vectors merged with the coefficients of `start`."""
    file, read = start_file(str(settings.start)), cache(read_table)
    return Learned(rule, lambda key, names: read(file, settings.origin).of((key,), names))


def arithmetic(settings: PoolSettings) -> TaskArithmetic:
    """Task arithmetic with the suite's customary coefficient."""
    prior = settings.suite.prior
    return TaskArithmetic() if prior is None else TaskArithmetic(prior)


def rule_name(settings: PoolSettings) -> str:
    """The rule's name with those of the post-rules: "ties+lines"."""
    return "+".join([settings.rule.name, *settings.post])


def rule_sees(settings: PoolSettings) -> AdaptOn | None:
    """The unlabeled images that the rule, or one behind it, learns from: its own choice, or the suite's. None: there
    are none."""
    if rule_of(settings).needs == "nothing":
        return None
    own, _ = _images_named(settings)
    return suite_adapts_on(settings.suite) if own is None else AdaptOn.of(own, "rule.adapt_on")


def rule_images(settings: PoolSettings) -> int | None:
    """How many images of each task it learns from, at most; None: all that there are."""
    given = [
        count for count in (_images_named(settings)[1], settings.suite.adapt_images) if count is not None
    ]
    return min(given, default=None)


def _images_named(settings: PoolSettings) -> tuple[AdaptSplit | None, int | None]:
    """The split and the number of images that the rule and its post-rules name; they look at the same."""
    parts: list[RuleSection | PostSection] = [settings.rule, *settings.post.values()]
    named = [(part.adapt_on, part.images) for part in parts if (part.adapt_on, part.images) != (None, None)]
    return named[0] if named else (None, None)


def refuse_pointless(settings: RunSettings, rule: Rule, trained: bool) -> None:
    """Check that the task vectors' origin makes a difference to the merge.

    Args:
        trained: coefficients, or another part of the encoder, are learned on the vectors.

    Raises:
        ConfigError: it makes none.
    """
    if settings.origin == "average" and rule.linear and not trained:
        raise ConfigError(
            f"origin=average: about the experts' average task vectors sum to zero, so that rule={rule_name(settings)} "
            "gives the average, or what it gives about the base.\n"
            "  Give origin=base, a rule that is not linear in the task vectors (ties, ...), or a method that learns "
            "coefficients (adamerging_layerwise, ...)."
        )


def with_own_start(settings: RunSettings) -> RunSettings:
    """The settings with coefficients that start where the merge stands, for a rule that gives one delta, has a
    post-rule behind it or says so (`Rule.own_start`).

    The suite's prior is the customary coefficient of task vectors as they are, not of such a merge; `start: null` of a
    model takes the rule's own. Another start than the prior is the user's, and stays.
    """
    prior = _PRIOR if settings.suite.prior is None else settings.suite.prior
    rule = rule_of(settings)
    if not settings.post and rule.gives != "delta" and not rule.own_start:
        return settings
    method = settings.method.model_copy(update={"model": from_the_rule(settings.method.model, prior)})
    return settings.model_copy(update={"method": method})


def from_the_rule(model: Mapping[str, Any], start: float | None = None) -> dict[str, Any]:
    """A method whose coefficients, its own or those of its part, start from the rule's.

    Args:
        start: the only start that gives way; None: any does.
    """
    given = dict(model)
    if "start" in given and start in (None, given["start"]):
        given["start"] = None
    if isinstance(part := given.get("coefficients"), Mapping):
        given["coefficients"] = from_the_rule(part, start)
    return given


def _refuse_unused(settings: PoolSettings, made: Mapping[str, Rule | PostRule]) -> None:
    """Check the options of images of the rule and of post-rules, by their places in the config."""
    sections: dict[str, RuleSection | PostSection] = {
        "rule": settings.rule,
        **{f"post.{name}": post for name, post in settings.post.items()},
    }
    for where, part in made.items():
        section = sections[where]
        given = [name for name in ("adapt_on", "images") if getattr(section, name) is not None]
        if given and part.needs == "nothing":
            name = f"rule={settings.rule.name}" if where == "rule" else where
            raise ConfigError(
                f"{where}.{given[0]}: {name} looks at no images.\n  Leave it out; method.adapt_on and "
                "suite.adapt_images are what a method adapts on."
            )
    looking = [where for where, part in made.items() if part.needs != "nothing"]
    for name in ("adapt_on", "images"):
        values = {where: getattr(sections[where], name) for where in looking}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{where}.{name}={'null' if v is None else v}" for where, v in values.items())
            raise ConfigError(
                f"A merge looks at the same images throughout, but {told}.\n  Give all of them one value."
            )
