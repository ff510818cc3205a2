"""The terms of a sum of objectives: given by name and weight, looked up in the objectives' YAMLs."""

from __future__ import annotations

from typing import Any

from adamerge.hints import near
from adamerge.settings.groups import choices
from adamerge.settings.inherited import inherited
from adamerge.settings.mistakes import Mistakes

SUM = "adamerge.objectives.weighted_sum.WeightedSum"
_PLACE = "method.objective.terms"


def look_up_terms(plain: dict[str, Any], mistakes: Mistakes) -> None:
    """Put the components of a sum's terms into a command's plain config.

    {agreement: 1.0, mine: {weight: 0.5, _target_: mine.Loss}} becomes terms {agreement: {_target_: ..., ...}, mine:
    {_target_: mine.Loss}} and weights {agreement: 1.0, mine: 0.5}. What is looked up already stays.
    """
    method = plain.get("method")
    objective = method.get("objective") if isinstance(method, dict) else None
    if not isinstance(objective, dict) or objective.get("_target_") != SUM or "weights" in objective:
        return
    terms = objective.get("terms")
    if terms is None:
        return  # the sum itself says that it has none
    if not isinstance(terms, dict) or not terms:
        mistakes.add(
            _PLACE, f"is {{objective: weight}}, e.g. {{agreement: 1.0, entropy: 0.1}} (got {terms!r})."
        )
        return
    found = {name: _looked_up(str(name), given, mistakes) for name, given in terms.items()}
    objective["terms"] = {name: component for name, (component, _) in found.items()}
    objective["weights"] = {name: weight for name, (_, weight) in found.items()}


def _looked_up(name: str, given: Any, mistakes: Mistakes) -> tuple[dict[str, Any], Any]:
    """The component of a term, and its weight."""
    options = dict(given) if isinstance(given, dict) else {"weight": given}
    weight = options.pop("weight", None)
    at = f"{_PLACE}.{name}"
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        mistakes.add(at, f"is a weight, or {{weight: 1.0, <option>: ...}} (got {given!r}).")
    known = choices("objective")
    if "_target_" in options:
        return options, weight
    if name not in known or name == "sum":
        offered = [other for other in known if other != "sum"]
        mistakes.add(at, f"no such objective; {near(name, offered)}")
        return {}, weight
    return {**inherited(known[name]), **options}, weight
