"""A word where a group of options belongs: what was meant is a choice, or a class with options."""

from __future__ import annotations

from typing import Any

from adamerge.hints import near
from adamerge.settings.groups import choices, method_names

# Those of torch.optim that a round's one gradient serves; torch is not imported to read a config.
_OPTIMIZERS = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop"),
    *("Rprop", "SGD"),
)


def instead(where: str, value: Any) -> str | None:
    """What to give in the place of a value that is no group of options; None where nothing more can be said."""
    if where == "method.schedule" and isinstance(value, int) and not isinstance(value, bool):
        return f"is a group of options (got {value!r}); give {where}.steps={value} for as many rounds."
    if not isinstance(value, str):
        return None
    if where == "method.optimizer":
        named = {name.lower(): name for name in _OPTIMIZERS}.get(value.lower())
        rest = "" if named else f"; {near(value, _OPTIMIZERS)}"
        kind = named or "<name>"
        said = f"is an optimiser's class with its options (got {value!r}); give"
        return f"{said} {where}._target_=torch.optim.{kind}{rest}"
    group = {"method.objective": "objective", "method.model": "method", "method.training": "method"}.get(
        where
    )
    if group is None:
        return None
    names = method_names() if group == "method" else list(choices(group))
    said = f"is a class with its options (got {value!r}), which a choice of {group} has; give {group}="
    return f"{said}{value}." if value in names else f"{said}<name>; {near(value, names)}"
