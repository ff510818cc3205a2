"""A rule's scale as an option among the settings: where it stands, from what it is chosen, and on which images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamerge.errors import ConfigError
from adamerge.rules.linear import TaskArithmetic
from adamerge.runs.images import suite_adapts_on
from adamerge.runs.rules import rule_name, rule_of
from adamerge.settings.commands import RunSettings
from adamerge.settings.sections import ChoiceSection
from adamerge.tasks.protocol import AdaptOn

# Where the number stands that a static merge is multiplied with.
_OPTIONS = (("scale",), ("alpha",), ("then", "scale"))
# Ten values, as TALL-masks' code has them, unless the rule's YAML or the config names others.
GRID = tuple(round(0.1 * step, 1) for step in range(1, 11))


def scale_option(settings: RunSettings) -> str:
    """The option that is a rule's scale: "rule.scale".

    Raises:
        ConfigError: a rule that has none.
    """
    return "rule." + ".".join(_place(settings))


def own_scale(settings: RunSettings) -> float:
    """The rule's own scale."""
    node: Any = _component(settings)
    for key in _place(settings):
        node = node[key]
    return float(node)


def at_scale(settings: RunSettings, scale: float) -> RunSettings:
    """The settings of the same merge at another scale."""
    component = _put(_component(settings), _place(settings), scale)
    return settings.model_copy(update={"rule": settings.rule.model_copy(update=component)})


def grid_of(settings: RunSettings) -> tuple[float, ...]:
    """The scales among which is chosen."""
    assert settings.choice is not None, "a scale is chosen"
    return tuple(settings.choice.grid or settings.rule.grid or GRID)


def chooses_on(settings: RunSettings) -> AdaptOn | None:
    """The images that the choice looks at: unlabeled ones as the suite offers them to adapt on, or labelled ones of the
    validation split. None: the scale is the rule's own."""
    if settings.choice is None:
        return None
    return AdaptOn("validation") if settings.choice.by == "labels" else suite_adapts_on(settings.suite)


def chooses_among(settings: RunSettings) -> int | None:
    """How many images of each task it looks at, at most; None: all that there are."""
    choice = settings.choice
    limits = [None if choice is None else choice.images, settings.suite.adapt_images]
    return min((limit for limit in limits if limit is not None), default=None)


def refuse_choice(settings: RunSettings) -> None:
    """Check that there is a scale to choose.

    Raises:
        ConfigError: there is none: a rule without one, a method that is trained, coefficients to start from, or scales
            that the rule does not take.
    """
    if (choice := settings.choice) is None:
        return
    said = f"choose={choice.by}"
    if settings.method.schedule is not None:
        raise ConfigError(
            f"{said} is of static merges, and method={settings.method.name} is trained.\n"
            f"  Leave it out; or choose first (train method={settings.rule.name} {said}) and give the scale that it "
            "says with rule=... to the method."
        )
    if settings.start is not None:
        raise ConfigError(f"{said}: start=... gives the coefficients already.\n  Leave out one of the two.")
    option = scale_option(settings)
    if not rule_of(settings).accurate:
        raise ConfigError(
            f"{said} takes the most accurate merge, and rule={settings.rule.name} is to forget tasks.\n"
            f"  Leave it out, and give the scale: {option}=<number>."
        )
    for scale in grid_of(settings):
        try:
            rule_of(at_scale(settings, scale))
        except (ConfigError, ValueError) as error:
            raise ConfigError(
                f"choose.grid: {option}={scale} is none that {rule_name(settings)} takes: {error}"
            ) from error


def _component(settings: RunSettings) -> dict[str, Any]:
    named = settings.rule.component
    if named is not None:
        return named
    arithmetic = rule_of(settings.model_copy(update={"post": {}}))
    assert isinstance(arithmetic, TaskArithmetic), "what a rule without a class is"
    return {
        "_target_": f"{TaskArithmetic.__module__}.{TaskArithmetic.__name__}",
        "scale": arithmetic.scale,
    }


def _place(settings: RunSettings) -> tuple[str, ...]:
    component = _component(settings)
    for place in _OPTIONS:
        node: Any = component
        for key in place:
            node = node.get(key) if isinstance(node, Mapping) else None
        if isinstance(node, int | float):
            return place
    by = "" if settings.choice is None else settings.choice.by
    raise ConfigError(
        f"choose={by}: rule={settings.rule.name} has no scale to choose (rule.scale or rule.alpha).\n"
        "  Leave out choose=..., or take a rule that has one (task_arithmetic, ties, tsv_m, ...; show rule/<name>)."
    )


def _put(node: Mapping[str, Any], place: tuple[str, ...], value: float) -> dict[str, Any]:
    first, *rest = place
    return {**node, first: _put(node[first], tuple(rest), value) if rest else value}


def described(choice: ChoiceSection) -> str:
    """What the numbers of a choice are."""
    return "estimated accuracy" if choice.by == "label_free" else "accuracy"
