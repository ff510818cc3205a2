"""adamerge: merge experts that share a base into one model, and adapt it on unlabeled images.

    pool = adamerge.open_pool(base, experts={task: checkpoint}, heads={task: tensor}, backbone="ViT-B-32-quickgelu")
    merged = adamerge.merge(pool, rule="ties")
    method = adamerge.methods.AdaMerging(pool, granularity="layer")
    adamerge.fit(method, stream, optimizer=..., schedule={"steps": 500, "batch_size": 16})

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "open_pool": "adamerge.models.open_pool",
    "merge": "adamerge.runs.merging",
    "fit": "adamerge.training",
    "Guard": "adamerge.training.guard",
    "Schedule": "adamerge.rounds.schedule",
    "Head": "adamerge.merging",
    "Pool": "adamerge.merging",
}
_MODULES = ("methods", "objectives", "rules")

__all__ = ["Guard", "Head", "Pool", "Schedule", "fit", "merge", "methods", "objectives", "open_pool", "rules"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _MODULES:
        return import_module(f"adamerge.{name}")
    raise AttributeError(f"module 'adamerge' has no attribute '{name}'")
