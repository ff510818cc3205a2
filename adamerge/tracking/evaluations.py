"""What was found out about a finished run later, by `evaluate run=`, and is about the run's own pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from adamerge.errors import RunError
from adamerge.tracking.results import Results, read_routing

FOLDER = "evaluations"
# What says how pictures pass through a model, not which pictures.
_SAME_PICTURES = {
    *("routing", "evaluation.batch_size", "evaluation.keep_predictions"),
    *("trainer", "trainer.accelerator"),
}


def with_later_routing(folder: Path, results: Results) -> Results:
    """The results of a run folder, with the routers that its own pictures were evaluated by afterwards.

    Raises:
        RunError: a damaged file.
    """
    found = dict(results.routing)
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if set(content["options"]) <= _SAME_PICTURES:
                found |= read_routing(content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error!r}.\n  Delete it and evaluate again.") from error
    return replace(results, routing=found)
