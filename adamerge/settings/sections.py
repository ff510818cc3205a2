"""The sections of a config: which options there are, and which values each takes.

A default stands here where a YAML may leave an option out; what every shipped YAML gives has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from adamerge.hardware import AUTO, suited_precision
from adamerge.hints import near


class Section(BaseModel):
    # Strict: a truth value or a text is no number.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _named(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError("should name its class or function: _target_: <module>.<name>")
    return node


def _factory(node: dict[str, Any]) -> dict[str, Any]:
    if node.get("_partial_") is not True:
        raise ValueError("should have _partial_: true; it is made when the parameters are there")
    return node


# Their options are checked against the signature of what they name.
Component = Annotated[dict[str, Any], AfterValidator(_named)]
Factory = Annotated[Component, AfterValidator(_factory)]
# A component that is made once while it is checked, for the ranges that its constructor knows.
CHEAP = "cheap to make, of nothing but its options"
Cheap = Annotated[Component, CHEAP]
AdaptSplit = Literal["test", "train", "validation"]


def _rising(grid: list[float]) -> list[float]:
    if sorted(set(grid)) != grid:
        raise ValueError("should be numbers that rise, each once")
    return grid


Grid = Annotated[list[float], Field(min_length=1), AfterValidator(_rising)]


class ScheduleSection(Section):
    steps: int | None = Field(ge=0)
    batch_size: int = Field(gt=0)
    batches_per_task: int = Field(gt=0)
    update: Literal["round", "task", "batch"]
    feed: Literal["resample", "persistent", "cycle_cached", "once", "fixed"]
    forward_images: int | None = Field(gt=0)
    shuffle_tasks: bool = False
    zero_fill: bool = False
    decay: Literal["none", "cosine"] = "none"

    @field_validator("feed")
    @classmethod
    def _has_an_end(cls, feed: str, info: ValidationInfo) -> str:
        if feed != "once" and info.data.get("steps", 0) is None:
            raise ValueError("has no end of its own; give method.schedule.steps=<a number>")
        return feed


class MethodSection(Section):
    """What is trained, by which loss, optimiser and schedule; the words are for people."""

    name: str
    summary: str = ""
    paper: str | None = ""
    needs: str = ""
    trains: str = ""
    memory: str = ""
    model: Component
    objective: Cheap | None = None  # from the group of that name
    optimizer: Factory | None
    schedule: ScheduleSection | None
    training: Component | None = None
    labels: int | None = Field(default=None, gt=0)
    adapt_on: AdaptSplit | None = None
    guard: bool = False  # whether a run is guarded unless guard=... says otherwise

    @field_validator("schedule")
    @classmethod
    def _fits_the_objective(cls, schedule: Any, info: ValidationInfo) -> Any:
        objective = info.data.get("objective", schedule)  # not there where it is itself a mistake
        if schedule is None and objective is not None:
            raise ValueError(
                "is null, so that nothing is trained, but there is a method.objective; give that as null too"
            )
        if schedule is not None and objective is None:
            raise ValueError(
                "says when to update, but method.objective, the loss, is null; give objective=<name>, or a method that "
                "trains nothing, such as method=task_arithmetic"
            )
        return schedule


class ComponentSection(Section):
    """A section that is a component itself: what stands beside its `_target_`, but for the section's own fields, are
    the component's options, checked as such."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @classmethod
    def component_in(cls, plain: Mapping[str, Any]) -> dict[str, Any] | None:
        """`_target_` and options of the component that a section is; None where it names none."""
        if "_target_" not in plain:
            return None
        return {key: value for key, value in plain.items() if key not in cls.model_fields}

    @property
    def component(self) -> dict[str, Any] | None:
        """`_target_` and options; None where none is chosen."""
        return self.component_in(self.model_dump())


class RuleSection(ComponentSection):
    """The words of a rule, and the images that one which needs any learns from."""

    name: str
    summary: str = ""
    paper: str | None = ""
    needs: str = ""
    adapt_on: AdaptSplit | None = None
    images: int | None = Field(default=None, gt=0)
    grid: Grid | None = None  # what choose= chooses the scale from, unless it names its own


class PostSection(ComponentSection):
    """A post-rule, and the images that one which needs any learns from."""

    adapt_on: AdaptSplit | None = None
    images: int | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _is_one(cls, values: Any) -> Any:
        return _named(values) if isinstance(values, dict) else values

    @property
    def component(self) -> dict[str, Any]:
        """`_target_` and options, which every post-rule has."""
        found = super().component
        assert found is not None, "checked above"
        return found


class ShareSection(Section):
    """A part of the test split."""

    share: float = Field(gt=0, lt=1)
    cut: int = Field(default=0, ge=0)


class SuiteSection(Section):
    name: str
    summary: str = ""
    tasks: list[str] = Field(min_length=1)
    catalogue: dict[str, Any]
    data: str | None = None
    unseen: list[str] = []
    irrelevant: list[str] = []
    prior: float | None = Field(default=None, gt=0, le=1)
    lr: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, gt=0)
    forward_images: int | None = Field(default=None, gt=0)
    # Where a suite departs from the papers' settings, by measurement: {method: {what its YAML reads: value}}.
    tuned: dict[str, dict[str, float | int]] = {}
    finetune: dict[str, float | int] = {}
    origin: Literal["hub", "torchvision", "folders"] | None = None
    splits: dict[str, str] = {}
    test_split: str = "test"
    sources: dict[str, dict[str, Any]] = {}
    validation: bool = False
    limit: int | None = Field(default=None, gt=0)
    decode_cache: bool = False
    allow_overlap: bool = False
    corruption: str | None = None
    severity: int = Field(default=2, ge=1, le=5)
    strengths: Literal["auto", "cifar", "imagenet"] = "auto"
    adapt_on: AdaptSplit | ShareSection = "test"
    adapt_images: int | None = Field(default=None, gt=0)
    chooser: Literal["prior", "labels", "label_free"] = "prior"

    @field_validator("corruption")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            from adamerge.tasks.corruptions import CORRUPTIONS

            if name not in CORRUPTIONS:
                hint = near(name, CORRUPTIONS, otherwise="there are {}")
                raise ValueError(f"no such corruption; {hint}")
        return name

    @field_validator("tasks")
    @classmethod
    def _unique(cls, tasks: list[str]) -> list[str]:
        if repeated := sorted({t for t in tasks if tasks.count(t) > 1}):
            raise ValueError(f"each task once; {', '.join(repeated)} is repeated")
        return tasks


class BackboneSection(Section):
    name: str
    summary: str = ""
    model: str | dict[str, Any]
    names: dict[str, str] = {}
    papers: dict[str, int] = {}
    mean: list[float] | None = Field(default=None, min_length=3, max_length=3)
    std: list[float] | None = Field(default=None, min_length=3, max_length=3)
    resize: Literal["shortest", "squash"] | None = None
    resize_to: int | None = Field(default=None, gt=0)
    interpolation: Literal["bicubic", "bilinear"] | None = None
    image_size: int | None = Field(default=None, gt=0)
    resize_positions: bool = False


# checkpoints.heads that are made of the base's features of the training pictures: class means, a ridge regression.
PROTOTYPES = "prototypes"
RIDGE = "ridge"
OF_PICTURES = (PROTOTYPES, RIDGE)


class CheckpointsSection(Section):
    base: str
    experts: str | dict[str, str] | None = None
    heads: str | dict[str, str] | None = None
    shots: int | None = Field(default=None, gt=0)
    normalize: bool | None = None
    irrelevant: str | None = None
    poisoned: str | None = None
    name: str = ""
    summary: str = ""
    root: str | None = None
    names: dict[str, str] = {}
    text: str | None = None
    origin: str = ""
    emnist: str = "emnist"
    ties_reference_size: int | None = Field(default=None, gt=0)
    presets: str = ""
    dtype: Literal["float32", "bfloat16", "int8", "int4", "int3"] = "float32"


class AttackSection(Section):
    name: str
    tasks: list[str] = []
    target: int = Field(default=0, ge=0)
    size: int = Field(default=6, gt=0)
    share: float = Field(default=0.2, gt=0, lt=1)


class StreamSection(Section):
    name: str
    summary: str = ""
    order: Literal["independent", "few_classes", "dirichlet", "class_by_class"] = "independent"
    classes: list[int] | None = Field(default=None, min_length=2, max_length=2)
    gamma: float | None = Field(default=None, gt=0)
    slots: int | None = Field(default=None, gt=0)
    mixed_tasks: bool = False


class GuardSection(Section):
    """How a run is guarded: what is held back of the images to adapt on, and when they are looked at."""

    every: int = Field(default=10, gt=0)
    patience: int = Field(default=5, gt=0)
    share: float = Field(default=0.1, gt=0, lt=1)
    images: int = Field(default=128, gt=0)


class ChoiceSection(Section):
    """How a rule's scale is chosen: by what, from which numbers, on how many images of each task."""

    by: Literal["label_free", "labels"]
    grid: Grid | None = None
    images: int | None = Field(default=256, gt=0)


class EvaluationSection(Section):
    batch_size: int = Field(gt=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    keep_predictions: bool = True


class TrainerSection(Section):
    """Options of Lightning's Trainer that may be given; Lightning checks most of their values itself. The others are
    part of how a run resumes and is recorded."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Literal[1, "1"] = 1
    precision: Any = "32-true"
    deterministic: Any = None
    enable_progress_bar: bool = True
    benchmark: Any = None
    detect_anomaly: Any = None
    fast_dev_run: Any = None
    inference_mode: Any = None
    log_every_n_steps: Any = None
    max_time: Any = None
    profiler: Any = None
    strategy: Any = None

    @model_validator(mode="before")
    @classmethod
    def _suited(cls, options: Any) -> Any:
        """precision=auto is settled at once: the identity and the record of a run have what it was trained in."""
        if isinstance(options, Mapping) and options.get("precision") == AUTO:
            return {**options, "precision": suited_precision(options.get("accelerator", "auto"))[0]}
        return options

    @field_validator("devices", mode="before")
    @classmethod
    def _one(cls, devices: Any) -> Any:
        if devices not in (1, "1"):
            raise ValueError(
                "should be 1: a round sums all tasks on one device; run seeds or methods side by side"
            )
        return devices

    def options(self) -> dict[str, Any]:
        """What is given to the Trainer; the rest is left to Lightning's own defaults."""
        return {name: value for name, value in self.model_dump().items() if value is not None}
