"""Each command's settings: the typed, frozen config that it runs with. Its fields are the options of its YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from adamerge.hints import near
from adamerge.settings.sections import (
    AttackSection,
    BackboneSection,
    CheckpointsSection,
    ChoiceSection,
    Component,
    EvaluationSection,
    Factory,
    GuardSection,
    MethodSection,
    PostSection,
    RuleSection,
    Section,
    StreamSection,
    SuiteSection,
    TrainerSection,
)

Routed = Literal["sim", "mass", "joint"]


class PoolSettings(Section):
    """conf/base.yaml: what every command has that opens tasks and checkpoints."""

    suite: SuiteSection
    backbone: BackboneSection
    checkpoints: CheckpointsSection
    rule: RuleSection
    post: dict[str, PostSection] = Field(default={})
    origin: Literal["base", "average"] = "base"
    trainer: TrainerSection
    stream: StreamSection = StreamSection(name="independent")
    attack: AttackSection = AttackSection(name="none")
    logger: dict[str, Component] | None = None
    evaluation: EvaluationSection
    experiment_name: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    start: str | None = None
    record: bool = True
    download: bool = False
    rerun: bool = False
    activation_checkpointing: bool = False
    checkpoint_every: int = Field(default=50, gt=0)
    eval_every: int | None = Field(default=None, ge=0)
    eval_images: int = Field(default=64, gt=0)
    chooser: Literal["prior", "labels", "label_free"] | None = None
    workers: int = Field(default=0, ge=0)
    outputs: str = ""

    @field_validator("experiment_name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and (not name or name in (".", "..") or "/" in name or "\\" in name):
            raise ValueError("should be the name of one folder; outputs=<folder> says where it lies")
        return name


class RunSettings(PoolSettings):
    """What a run folder's config.yaml holds: a pool, a rule and a method."""

    method: MethodSection
    name: str | None = Field(default=None, min_length=1)
    guard: bool | GuardSection = False
    choose: Literal["prior", "label_free", "labels"] | ChoiceSection = "prior"
    routing: list[Routed] = Field(default=[])

    @field_validator("guard", "choose", mode="before")
    @classmethod
    def _known_options(cls, given: Any, info: ValidationInfo) -> Any:
        fields = (GuardSection if info.field_name == "guard" else ChoiceSection).model_fields
        if isinstance(given, dict):
            for key in given:
                if key not in fields:
                    raise ValueError(f"no such option '{key}'; {near(str(key), fields)}")
        return given

    @field_validator("routing")
    @classmethod
    def _each_once(cls, routing: list[str]) -> list[str]:
        if len(set(routing)) < len(routing):
            raise ValueError("each router once")
        return routing

    @property
    def guarded(self) -> GuardSection | None:
        """How the run is guarded; None where it is not."""
        if isinstance(self.guard, GuardSection):
            return self.guard
        return GuardSection() if self.guard else None

    @property
    def choice(self) -> ChoiceSection | None:
        """How the rule's scale is chosen; None where it is the rule's own."""
        if isinstance(self.choose, ChoiceSection):
            return self.choose
        return None if self.choose == "prior" else ChoiceSection(by=self.choose)


class MergeSettings(RunSettings):
    """conf/merge.yaml."""

    evaluate: bool = True

    def of_run(self) -> RunSettings:
        """The settings of the run, which are the same whether it is evaluated at once."""
        return RunSettings.model_validate(self.model_dump(exclude={"evaluate"}))


class TrainSettings(RunSettings):
    """conf/train.yaml."""

    maximise: Literal["agreement", "estimate", "accuracy", "entropy"] = "agreement"


class EvaluateSettings(RunSettings):
    """conf/evaluate.yaml."""

    run: str | None = None
    checkpoint: str | None = None
    out: str | None = None


class MakingSettings(PoolSettings):
    """What `pretrain` and `finetune` share: a training with labels."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    warmup: int = Field(default=0, ge=0)
    optimizer: Factory


class FinetuneSettings(MakingSettings):
    """conf/finetune.yaml."""

    task: str | None = None
    shuffle: int | None = Field(default=None, ge=0)
    crop: float = Field(default=1.0, gt=0, le=1)
    lora: int | None = Field(default=None, gt=0)
    lora_alpha: float | None = Field(default=None, gt=0)
    lora_targets: list[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]] = Field(
        default=["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], min_length=1
    )


class PretrainSettings(MakingSettings):
    """conf/pretrain.yaml."""

    folder: str


class ExportSettings(Section):
    """conf/export.yaml."""

    run: str
    out: str
    format: Literal["open_clip", "hf", "timm", "safetensors", "peft", "onnx", "torch_export"] = "open_clip"
    task: str | None = None


class PredictSettings(Section):
    """conf/predict.yaml."""

    run: str
    images: str
    task: str | Annotated[list[str], Field(min_length=1)] | None
    routing: Routed | None
    out: str
    top: int = Field(gt=0)
    at_least: float = Field(ge=0, lt=1)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that are given; none where a router finds them."""
        return (self.task,) if isinstance(self.task, str) else tuple(dict.fromkeys(self.task or ()))


class BenchSettings(Section):
    """conf/bench.yaml."""

    backbone: BackboneSection | None = None
    name: str
    rules: list[str] | None = Field(default=None, min_length=1)
    tasks: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    classes: int = Field(gt=0)
    dtype: Literal["float32", "bfloat16"]
    precision: Literal["32-true", "bf16-mixed"]
    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?)$")
    output: str | None
    rounds: int = Field(gt=0)
    steps: int = Field(gt=0)


def as_yaml(settings: Section) -> str:
    """What a run folder keeps of its settings; `validate` reads it back. Options at their default are in it too."""
    return yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True)


SETTINGS: dict[str, type[Section]] = {
    "train": TrainSettings,
    "merge": MergeSettings,
    "doctor": TrainSettings,
    "evaluate": EvaluateSettings,
    "finetune": FinetuneSettings,
    "pretrain": PretrainSettings,
    "export": ExportSettings,
    "predict": PredictSettings,
    "bench": BenchSettings,
}
