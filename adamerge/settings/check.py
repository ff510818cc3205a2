"""Checks a composed config as a whole: every mistake in one error, before any file is opened."""

from __future__ import annotations

from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adamerge.settings.components import check_component, check_value_errors
from adamerge.settings.mistakes import Mistakes, near


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class ScheduleSection(_Section):
    steps: int = Field(ge=0)
    batch_size: int = Field(gt=0)
    batches_per_task: int = Field(gt=0)
    update: Literal["round", "task", "batch"]
    feed: Literal["resample", "persistent"]
    forward_images: int | None = Field(gt=0)


class SuiteSection(_Section):
    name: str
    summary: str = ""
    tasks: list[str] = Field(min_length=1)
    catalogue: dict[str, Any]
    data: str | None = None
    steps: int | None = Field(default=None, gt=0)
    forward_images: int | None = Field(default=None, gt=0)

    @field_validator("tasks")
    @classmethod
    def _unique(cls, tasks: list[str]) -> list[str]:
        if repeated := sorted({t for t in tasks if tasks.count(t) > 1}):
            raise ValueError(f"each task once; {', '.join(repeated)} is repeated")
        return tasks


class BackboneSection(_Section):
    name: str
    summary: str = ""
    model: str | dict[str, Any]


class CheckpointsSection(_Section):
    base: str
    experts: str | dict[str, str] | None = None
    heads: str | dict[str, str] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"


class EvaluationSection(_Section):
    batch_size: int = Field(gt=0)


class TrainerSection(BaseModel):
    """Options of Lightning's Trainer; those that adamerge decides itself are refused."""

    model_config = ConfigDict(extra="allow")
    devices: Literal[1, "1"] = 1

    @field_validator("devices", mode="before")
    @classmethod
    def _one(cls, devices: Any) -> Any:
        if devices not in (1, "1"):
            raise ValueError("a round sums all tasks on one device; run several seeds or methods on several devices")
        return devices


# Options of Lightning's Trainer that may be given. The others are part of how a run resumes and is recorded.
TRAINER_OPTIONS = frozenset(
    "accelerator benchmark detect_anomaly deterministic devices enable_progress_bar fast_dev_run inference_mode "
    "log_every_n_steps max_time precision profiler strategy".split()
)

_SECTIONS: dict[str, type[BaseModel]] = {
    "suite": SuiteSection,
    "backbone": BackboneSection,
    "checkpoints": CheckpointsSection,
    "evaluation": EvaluationSection,
    "trainer": TrainerSection,
}


def validate(config: DictConfig) -> None:
    """Check values, components, references between sections and missing values.

    Raises:
        ConfigError: all mistakes, each with its place and what to do.
    """
    mistakes = Mistakes()
    find_mistakes(config, mistakes)
    mistakes.report()


def find_mistakes(config: DictConfig, mistakes: Mistakes) -> None:
    """Note every mistake of a composed config."""
    plain = _resolved(config, mistakes)
    for name, section in _SECTIONS.items():
        if name in plain:
            _check_section(name, plain[name], section, mistakes)
    schedule = (plain.get("method") or {}).get("schedule")
    if schedule is not None:
        _check_section("method.schedule", schedule, ScheduleSection, mistakes)
    _check_tasks(plain.get("suite") or {}, mistakes)
    _check_trainer(plain.get("trainer") or {}, mistakes)
    if not isinstance(plain.get("seed", 0), int) or plain.get("seed", 0) < 0:
        mistakes.add("seed", f"a whole number from 0 on (got {plain['seed']!r}).")
    for where, node in _components(plain):
        check_component(where, node, mistakes)
    rule = (plain.get("rule") or {}).get("rule")
    if rule and not mistakes.lines:
        check_value_errors("rule.rule", rule, mistakes)


def _resolved(config: DictConfig, mistakes: Mistakes) -> dict[str, Any]:
    """The config as plain data; values that are missing or cannot be resolved are noted and left out."""
    for key in sorted(OmegaConf.missing_keys(config)):
        mistakes.add(key, f"has no value; give {key}=...")
    plain: dict[str, Any] = {}
    for key in config:
        if OmegaConf.is_missing(config, key):
            continue
        try:
            value = config[key]
            plain[str(key)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            mistakes.add(str(error.full_key or key), str(error).splitlines()[0])
    return plain


def _check_section(where: str, values: Any, section: type[BaseModel], mistakes: Mistakes) -> None:
    if not isinstance(values, dict):
        mistakes.add(where, f"a group of options is expected here (got {values!r}).")
        return
    try:
        section.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            at = ".".join([where, *(str(part) for part in problem["loc"] if not str(part).startswith("dict["))])
            if problem["input"] == "???":
                continue  # noted as missing
            if problem["type"] == "extra_forbidden":
                mistakes.add(at, f"no such option; {near(str(problem['loc'][-1]), section.model_fields)}")
            elif problem["type"] == "missing":
                mistakes.add(at, f"has no value; give {at}=...")
            else:
                mistakes.add(at, f"{problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r}).")


def _check_tasks(suite: dict[str, Any], mistakes: Mistakes) -> None:
    catalogue = suite.get("catalogue")
    tasks = suite.get("tasks")
    if not isinstance(catalogue, dict) or not isinstance(tasks, list):
        return
    for index, task in enumerate(tasks):
        if task not in catalogue:
            mistakes.add(f"suite.tasks[{index}]", f"no task '{task}'; {near(str(task), catalogue)}")


def _check_trainer(trainer: dict[str, Any], mistakes: Mistakes) -> None:
    for key in trainer:
        if key not in TRAINER_OPTIONS:
            mistakes.add(f"trainer.{key}", f"not an option that may be set; {near(key, TRAINER_OPTIONS)}")


def _components(plain: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The outermost nodes with a `_target_`, with their places; of the catalogue only the tasks in use."""
    found: list[tuple[str, dict[str, Any]]] = []
    used = set((plain.get("suite") or {}).get("tasks") or ())

    def walk(where: str, node: Any) -> None:
        if not isinstance(node, dict):
            return
        if "_target_" in node:
            found.append((where, node))
            return
        for key, value in node.items():
            if where != "suite.catalogue" or key in used:
                walk(f"{where}.{key}" if where else str(key), value)

    walk("", plain)
    return found
