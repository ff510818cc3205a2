"""The schemas in docs are those of the code, and what runs write fits them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tracking.test_tracking import example

from adamerge.tracking.results import (
    Attack,
    Choice,
    Guarded,
    PartResult,
    RoutedTask,
    Routing,
    Tried,
    as_json,
)
from adamerge.tracking.schemas import journal_schema, results_schema

DOCS = Path(__file__).parent.parent.parent / "docs"
_KINDS: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip


def misfits(value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str = "$") -> list[str]:
    """Why a value does not fit, for the words that these schemas use."""
    if "$ref" in schema:
        return misfits(value, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, at)
    if "anyOf" in schema:
        each = [misfits(value, one, whole, at) for one in schema["anyOf"]]
        return [] if [] in each else [f"{at}: none of {schema['anyOf']}"]
    if "const" in schema and value != schema["const"]:
        return [f"{at}: {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} of {schema['enum']}"]
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if kinds and not any(
        isinstance(value, _KINDS[k]) and not (isinstance(value, bool) and k in ("number", "integer"))
        for k in kinds
    ):
        return [f"{at}: {value!r} is no {kinds}"]
    found = []
    if isinstance(value, dict):
        found += [f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value]
        for key, own in value.items():
            below = schema.get("properties", {}).get(key)
            for pattern, other in schema.get("patternProperties", {}).items():
                below = other if below is None and re.search(pattern, key) else below
            rest = schema.get("additionalProperties", True)
            if below is None and rest is False:
                found.append(f"{at}.{key}: no such field")
            elif below is not None or isinstance(rest, dict):
                found += misfits(own, below if below is not None else rest, whole, f"{at}.{key}")
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        found += [
            line for i, own in enumerate(value) for line in misfits(own, schema["items"], whole, f"{at}[{i}]")
        ]
    return found


@pytest.mark.parametrize(("name", "made"), [("results", results_schema()), ("journal", journal_schema())])
def test_docs_have_the_schema_of_the_code(name: str, made: dict[str, Any]) -> None:
    kept = json.loads((DOCS / f"{name}.schema.json").read_text())
    assert kept == made, "python -m adamerge.tracking.schemas docs"


def full() -> dict[str, Any]:
    """Results with everything that there may be, as they are written."""
    routed = RoutedTask(0.9, 0.5, None, 0.7, 10, {"signs": 9, "digits": 1})
    results = example(
        unseen={"dtd": example().tasks["signs"]}, attack={"signs": Attack(0.9, 1.0, None, 0.1)},
        adapted={"signs": PartResult(0.8, 0.9, 50)}, held_out={"signs": PartResult(None, 0.9, 50)},
        guard=Guarded(0.5, 0.7, 0.6, "best", 10, ("task/signs",)), bytes=12, objective="entropy (nats)",
        choice=Choice("labels", "rule.scale", "validation", {"signs": 5}, 0.3, 0.2, (Tried(0.2, 0.6, {"signs": 0.6}),)),
        routing={"sim": Routing({"signs": routed}, "no images")}, protocol="none", task_known=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps(as_json(results)))
    return found


def test_results_fit_and_every_field_is_in_the_schema() -> None:
    schema = results_schema()
    assert misfits(full(), schema, schema) == []
    assert set(schema["properties"]) == set(full())
    assert misfits(json.loads(json.dumps(as_json(example()))), schema, schema) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("seed",), "0"),
        (("tasks", "signs", "accuracy"), "0.8"),
        (("guard", "kept"), "middle"),
        (("schema",), 99),
    ],
)
def test_what_does_not_fit_is_found(where: tuple[str, ...], value: Any) -> None:
    """The check itself: what is wrong, it sees."""
    content, schema = full(), results_schema()
    node = content
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    assert misfits(content, schema, schema)


def test_lines_of_a_journal_fit() -> None:
    line = {
        "step": 0, "loss": 2.0, "loss/signs": 1.0, "loss/digits": None, "seconds": 0.1, "seconds_loading": 0.0,
        "peak_memory_bytes": 5, "eval/accuracy": 0.5, "guard/estimate": 0.6, "guard/kept": 3,
        "collapse/task/signs": 0.9,
    }  # fmt: skip
    schema = journal_schema()
    assert misfits(line, schema, schema) == []
    assert misfits({**line, "losses": 1.0}, schema, schema) == ["$.losses: no such field"]
    assert misfits({k: v for k, v in line.items() if k != "loss"}, schema, schema) == ["$.loss: missing"]
