"""The fixed sections of a config: which values each option takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from adamerge.settings.mistakes import near


class _Section(BaseModel):
    # Strict: a truth value or a text is no number.
    model_config = ConfigDict(extra="forbid", strict=True)


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


class ScheduleSection(_Section):
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


class TunedSection(_Section):
    """Where a suite departs from the papers' schedules, by measurement."""

    router_lr: float | None = Field(default=None, gt=0)
    surgery_lr: float | None = Field(default=None, gt=0)
    meta_steps: int | None = Field(default=None, gt=0)
    mask_lr: float | None = Field(default=None, gt=0)
    block_steps: int | None = Field(default=None, gt=0)
    atm_steps: int | None = Field(default=None, gt=0)


class MethodSection(_Section):
    """What is trained, by which loss, optimiser and schedule; the words are for people."""

    name: str
    summary: str = ""
    paper: str | None = ""
    needs: str = ""
    trains: str = ""
    memory: str = ""
    model: Component
    objective: Component | None = None  # from the group of that name
    optimizer: Factory | None
    schedule: Any  # a section of its own
    training: Component | None = None
    labels: int | None = Field(default=None, gt=0)
    adapt_on: Literal["test", "train", "validation"] | None = None

    @field_validator("schedule")
    @classmethod
    def _fits_the_objective(cls, schedule: Any, info: ValidationInfo) -> Any:
        objective = info.data.get("objective", schedule)  # not there where it is itself a mistake
        if schedule is None and objective is not None:
            raise ValueError("is null, as nothing is trained: an objective has nothing to do; leave it out")
        if schedule is not None and objective is None:
            raise ValueError("says when to update, but not on which loss; give objective=<name>")
        return schedule


class RuleSection(_Section):
    """The words of a rule. What else stands beside its `_target_` are the component's options, checked as such."""

    name: str
    summary: str = ""
    paper: str | None = ""
    needs: str = ""
    target: str | None = Field(default=None, alias="_target_")


class LoggerSection(BaseModel):
    """Mirrors by any name."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Component]


class ShareSection(_Section):
    """A part of the test split."""

    share: float = Field(gt=0, lt=1)
    cut: int = Field(default=0, ge=0)


class SuiteSection(_Section):
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
    tuned: TunedSection = TunedSection()
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
    adapt_on: Literal["test", "train", "validation"] | ShareSection = "test"
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


class BackboneSection(_Section):
    name: str
    summary: str = ""
    model: str | dict[str, Any]
    names: dict[str, str] = {}
    papers: dict[str, int] = {}
    mean: list[float] | None = Field(default=None, min_length=3, max_length=3)
    std: list[float] | None = Field(default=None, min_length=3, max_length=3)
    image_size: int | None = Field(default=None, gt=0)
    resize_positions: bool = False


class CheckpointsSection(_Section):
    base: str
    experts: str | dict[str, str] | None = None
    heads: str | dict[str, str] | None = None
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
    dtype: Literal["float32", "bfloat16"] = "float32"


class AttackSection(_Section):
    name: str
    tasks: list[str] = []
    target: int = Field(default=0, ge=0)
    size: int = Field(default=6, gt=0)
    share: float = Field(default=0.2, gt=0, lt=1)


class StreamSection(_Section):
    name: str
    summary: str = ""
    order: Literal["independent", "few_classes", "dirichlet", "class_by_class"] = "independent"
    classes: list[int] | None = Field(default=None, min_length=2, max_length=2)
    gamma: float | None = Field(default=None, gt=0)
    slots: int | None = Field(default=None, gt=0)
    mixed_tasks: bool = False


class EvaluationSection(_Section):
    batch_size: int = Field(gt=0)


class TrainerSection(BaseModel):
    """Options of Lightning's Trainer; Lightning checks their values itself."""

    model_config = ConfigDict(extra="allow")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Literal[1, "1"] = 1

    @field_validator("devices", mode="before")
    @classmethod
    def _one(cls, devices: Any) -> Any:
        if devices not in (1, "1"):
            raise ValueError(
                "should be 1: a round sums all tasks on one device; run seeds or methods side by side"
            )
        return devices


# Options of Lightning's Trainer that may be given. The others are part of how a run resumes and is recorded.
TRAINER_OPTIONS = (
    *("accelerator", "benchmark", "detect_anomaly", "deterministic", "devices", "enable_progress_bar"),
    *("fast_dev_run", "inference_mode", "log_every_n_steps", "max_time", "precision", "profiler", "strategy"),
)


class CommonSection(_Section):
    """The top level: the groups, and the single values beside them, in whichever command has them."""

    suite: Any = None
    backbone: Any = None
    checkpoints: Any = None
    method: Any = None
    rule: Any = None
    attack: Any = None
    stream: Any = None
    trainer: Any = None
    logger: Any = None
    evaluation: Any = None
    optimizer: Factory | None = None
    experiment_name: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_every: int = Field(default=1, gt=0)
    eval_every: int | None = Field(default=None, ge=0)
    eval_images: int = Field(default=64, gt=0)
    chooser: Literal["prior", "labels", "label_free"] | None = None
    workers: int = Field(default=0, ge=0)
    start: str | None = None
    record: bool = True
    download: bool = False
    rerun: bool = False
    activation_checkpointing: bool = False
    maximise: Literal["agreement", "estimate", "accuracy", "entropy"] = "agreement"
    steps: int = Field(default=1, gt=0)
    batch_size: int = Field(default=1, gt=0)
    warmup: int = Field(default=0, ge=0)
    crop: float = Field(default=1.0, gt=0, le=1)
    outputs: str = ""
    run: str | None = None
    checkpoint: str | None = None
    images: str | None = None
    task: str | None = None
    out: str | None = None
    folder: str | None = None
    shuffle: int | None = Field(default=None, ge=0)
    name: str = ""
    tasks: int = Field(default=1, gt=0)
    classes: int = Field(default=1, gt=0)
    rounds: int = Field(default=1, gt=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    top: int = Field(default=1, gt=0)
    format: Literal["open_clip", "hf", "safetensors", "onnx", "torch_export"] = "open_clip"

    @field_validator("experiment_name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and (not name or name in (".", "..") or "/" in name or "\\" in name):
            raise ValueError("should be the name of one folder; outputs=<folder> says where it lies")
        return name


SECTIONS: dict[str, type[BaseModel]] = {
    "suite": SuiteSection,
    "backbone": BackboneSection,
    "checkpoints": CheckpointsSection,
    "evaluation": EvaluationSection,
    "attack": AttackSection,
    "stream": StreamSection,
    "trainer": TrainerSection,
    "logger": LoggerSection,
    "rule": RuleSection,
    "method": MethodSection,
    "method.schedule": ScheduleSection,
}
