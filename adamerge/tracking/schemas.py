"""JSON Schemas (draft 2020-12) of results.json and of a line of journal.jsonl, from the code that writes them.

`python -m adamerge.tracking.schemas docs` writes them as docs/results.schema.json and docs/journal.schema.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from adamerge.files import atomic_write_text
from adamerge.tracking.results import ROUTED, SCHEMA, Results

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = {"type": ["number", "null"]}
_AVERAGES = {
    "average": "mean accuracy over the tasks",
    "normalized_average": "mean of the accuracies over the experts'",
    "agreement": "mean agreement with the experts",
    "estimate": "mean of the accuracies estimated without labels",
    "unseen_average": "mean accuracy over the unseen tasks",
    "ece": "mean expected calibration error",
    "nll": "mean negative log-likelihood in nats",
    "brier": "mean Brier score",
    "adapted_average": "mean accuracy on the test images that were adapted on",
    "held_out_average": "mean accuracy on the test images that were not",
    "gap": "adapted_average less held_out_average",
}
_STEP: dict[str, Any] = {
    "step": {"type": "integer", "minimum": 0, "description": "number of the step, from 0"},
    "loss": _NUMBER | {"description": "sum of the step's losses; null where it is not finite"},
    "seconds": {"type": "number", "minimum": 0, "description": "of the step, without evaluations"},
    "seconds_loading": {"type": "number", "minimum": 0, "description": "of these, until the batch was there"},
    "peak_memory_bytes": {"type": "integer", "minimum": 0, "description": "of the process, or of the GPU"},
}


def results_schema() -> dict[str, Any]:
    """Of results.json as this version writes it; a file of an older schema may lack what is new."""
    found = TypeAdapter(Results).json_schema()
    found["properties"] |= {name: _NUMBER | {"description": said} for name, said in _AVERAGES.items()}
    averages = {"type": "object", "properties": dict.fromkeys(ROUTED, _NUMBER), "required": list(ROUTED)}
    found["properties"]["routing_average"] = {"type": "object", "additionalProperties": averages}
    found["properties"]["schema"] = {"const": SCHEMA}
    found["required"] = [*found["required"], "schema", "average"]
    return {"$schema": _DIALECT, **found, "title": "results.json of a run of adamerge"}


def journal_schema() -> dict[str, Any]:
    """Of one line of journal.jsonl."""
    return {
        "$schema": _DIALECT,
        "title": "a line of journal.jsonl of a run of adamerge",
        "type": "object",
        "properties": _STEP,
        "patternProperties": {
            "^loss/": _NUMBER | {"description": "of one task"},
            "^eval/": _NUMBER | {"description": "mean over the tasks, on eval_images of each (eval_every)"},
            "^guard/": _NUMBER
            | {"description": "accuracy estimated on images held back; the step that is kept"},
            "^collapse/": _NUMBER | {"description": "share of a task's or an expert's images in one class"},
        },
        "additionalProperties": False,
        "required": list(_STEP),
    }


def main(folder: Path) -> None:
    for name, schema in (("results", results_schema()), ("journal", journal_schema())):
        atomic_write_text(folder / f"{name}.schema.json", json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
