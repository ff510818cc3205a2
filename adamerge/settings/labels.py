"""What learns from labels is given some, and sees no stream: all of it is known from the settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamerge.settings.components import instantiate
from adamerge.settings.mistakes import Mistakes


def check_labels(plain: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note an objective of labels in a method that gets none, and a stream's order for one that sees no stream.

    Args:
        plain: a command's config, whose components have been checked.
    """
    method = plain.get("method")
    objective = method.get("objective") if isinstance(method, Mapping) else None
    if not isinstance(method, Mapping) or not isinstance(objective, Mapping):
        return
    if any(place.startswith("method.objective") for place in mistakes.places) or not _of_labels(objective):
        return
    name = method.get("name")
    if method.get("labels") is None:
        kind = str(objective["_target_"]).rpartition(".")[2]
        mistakes.add(
            "method.objective",
            f"{kind} learns from labels, which {name} does not get.\n"
            "Give +method.labels=<training pictures per task>, or another objective.",
        )
    stream = plain.get("stream")
    if isinstance(stream, Mapping) and (
        stream.get("order", "independent") != "independent" or stream.get("mixed_tasks")
    ):
        mistakes.add(
            "stream",
            f"{name} learns from labelled training images and sees no stream; give stream=independent.",
        )


def check_guard(plain: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note a guard of a method that adapts on no unlabeled images, of which some could be held back."""
    method = plain.get("method")
    if plain.get("guard") in (None, False) or not isinstance(method, Mapping):
        return
    objective = method.get("objective")
    if method.get("schedule") is None:
        mistakes.add(
            "guard", f"{method.get('name')} trains nothing, so that there is nothing to guard; leave it out."
        )
    elif (
        isinstance(objective, Mapping) and "method.objective" not in mistakes.places and _of_labels(objective)
    ):
        mistakes.add(
            "guard",
            f"{method.get('name')} learns from labels and sees no unlabeled images, of which some could be held back; "
            "give guard=false.",
        )


def _of_labels(objective: Mapping[str, Any]) -> bool:
    try:
        return getattr(instantiate(objective), "target", None) == "labels"
    except (TypeError, ValueError):
        return False  # one of the user's own that cannot be made says so itself
