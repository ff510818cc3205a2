"""What the loss in a journal is, told from the config. Importing the losses would import torch."""

from __future__ import annotations

from typing import Any

# The same words as the `name` of the classes in adamerge.losses.
OBJECTIVES = {
    "Entropy": "entropy (nats)",
    "Alignment": "distance to the expert (mean absolute difference)",
    "PseudoLabels": "cross-entropy to the expert (nats)",
    "Distillation": "squared difference to the expert (summed)",
    "CrossEntropy": "cross-entropy to the labels (nats)",
    "TaskIdentity": "cross-entropy to the task (nats)",
}


def objective(config: dict[str, Any]) -> str:
    """Of a flattened config; "loss" where it is not known."""
    name = str(config.get("method.objective._target_", "")).rpartition(".")[2]
    return OBJECTIVES.get(name, name or "loss")
