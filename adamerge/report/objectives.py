"""What the loss in a run's journal is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamerge.tracking.results import Results


def objective(results: Results, config: Mapping[str, Any]) -> str:
    """The objective with its unit, as the run noted it.

    Args:
        config: flattened; names the class of the objective of a run from before runs noted it.
    """
    if results.objective:
        return results.objective
    return str(config.get("method.objective._target_") or "").rpartition(".")[2] or "loss"


def loss_label(results: Results, config: Mapping[str, Any]) -> str:
    """For an axis: what one value of a task's loss in the journal is."""
    return f"{objective(results, config)}, summed over a step's batches"
