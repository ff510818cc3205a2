"""Reports of weight files: what is in them, beside them and around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reports.inputs import with_experts
from reports.report import BASE, EXPERTS, Report
from safetensors.torch import load_file, save_file
from torch import Tensor

from adamerge.checkpoints import open_clip_to_hf

State = dict[str, Tensor]
LAYER = "vision_model.encoder.layers.{}."
DIGITS = 0.986  # of the digits expert, whatever it is wrapped in


def expert(task: str = "digits") -> State:
    return load_file(EXPERTS / f"{task}.safetensors")


def base() -> State:
    return {
        k: v for k, v in load_file(BASE / "open_clip_model.safetensors").items() if k.startswith("visual.")
    }


def on_mini(*words: str, command: str = "merge", **experts: Path) -> list[str]:
    """A command on mini's digits with one's own expert of it, at coefficient 1."""
    experts = {"digits": EXPERTS / "digits.safetensors", **experts}
    tasks = f"suite.tasks=[{','.join(experts)}]"
    return [command, "suite=mini", tasks, "suite.prior=1.0", *with_experts(**experts), *words]


def saved(folder: Path, state: State, name: str = "model.safetensors", **beside: object) -> Path:
    """The folder with the weights, and a JSON for each further name."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / name)
    for config, content in beside.items():
        (folder / f"{config}.json").write_text(json.dumps(content))
    return folder


def lora(home: Path) -> Path:
    """PEFT before 0.6: the adapters beside the base's weights."""
    names = {f"{LAYER.format(0)}mlp.fc1.lora_{x}.default.weight": torch.randn(4, 4) for x in "AB"}
    return saved(home / "lora", open_clip_to_hf(base()) | names)


def adapter(home: Path) -> Path:
    folder = saved(home / "adapter", open_clip_to_hf(base()))
    return saved(folder, {"x.lora_A.weight": torch.zeros(2)}, "adapter_model.safetensors")


def eight_bit(home: Path) -> Path:
    """As transformers saves a model that bitsandbytes has quantised."""
    packed: State = {}
    for key, value in open_clip_to_hf(expert()).items():
        if value.ndim == 2 and ".encoder." in key:
            scale = value.abs().amax(1)
            packed[key] = (value / scale[:, None] * 127).round().to(torch.int8)
            packed[key.replace(".weight", ".SCB")] = scale
        else:
            packed[key] = value.half()
    return saved(home / "int8", packed, config={"quantization_config": {"load_in_8bit": True}})


def classifier(home: Path) -> Path:
    """Hugging Face's CLIPForImageClassification: mean pooling before the projection."""
    state = {k: v for k, v in open_clip_to_hf(expert()).items() if k != "visual_projection.weight"}
    head = {"classifier.weight": torch.randn(10, 128), "classifier.bias": torch.zeros(10)}
    return saved(home / "classifier", state | head)


def pickled(content: object) -> Callable[[Path], Path]:
    def make(home: Path) -> Path:
        path = home / "digits.ckpt"
        torch.save(content, path)
        return path

    return make


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def refused(name: str, make: Callable[[Path], Path], *says: str) -> list[Report]:
    """A file that merge, doctor and convert refuse alike."""
    commands: dict[str, Callable[[Path], list[str]]] = {
        "merge": lambda home: on_mini(digits=make(home)),
        "doctor": lambda home: on_mini(command="doctor", digits=make(home)),
        "convert": lambda home: ["convert", str(make(home))],
    }
    return [Report(f"{command}: {name}", words, says=says) for command, words in commands.items()]


def opens(name: str, make: Callable[[Path], Path], *says: str) -> Report:
    """A file that is the digits expert."""
    return Report(name, lambda home: on_mini(digits=make(home)), exit=0, says=says, average=DIGITS)


HALF = [0.5, 0.5, 0.5]
CONFIG = {"model_type": "clip_vision_model", "hidden_act": "gelu", "num_attention_heads": 4, "image_size": 32}


def described(**configs: Any) -> Callable[[Path], Path]:
    """The digits expert with configuration files beside it."""
    return lambda home: saved(home / "described", open_clip_to_hf(expert()), **configs)


def at_48(home: Path) -> Path:
    """The digits expert with positions of 6 x 6 patches in the place of 4 x 4, as fine-tuning at 48 px has them."""
    state = expert()
    positions = state["visual.positional_embedding"].float()
    grid = positions[1:].T.reshape(1, -1, 4, 4)
    grid = torch.nn.functional.interpolate(
        grid, size=(6, 6), mode="bicubic", antialias=True, align_corners=False
    )
    state["visual.positional_embedding"] = torch.cat([positions[:1], grid.reshape(-1, 36).T])
    return saved(home / "at48", state)


def contradicts(name: str, make: Callable[[Path], Path], *says: str) -> list[Report]:
    """A file whose configuration contradicts the backbone: merge and doctor say which side says what."""
    return [
        Report(f"{command}: {name}", lambda home, c=command: on_mini(command=c, digits=make(home)), says=says)  # type: ignore[misc]
        for command in ("merge", "doctor")
    ]


def alike(name: str, make: Callable[[Path], Path], twin: str) -> list[Report]:
    """A file for the task signs that is another model of the pool."""
    merge = f"Up to rounding, signs equals {'the base model' if twin == 'base' else twin.split()[-1]}"
    return [
        Report(f"merge: {name}", lambda home: on_mini(signs=make(home)), exit=0, says=(merge,)),
        Report(
            f"doctor: {name}",
            lambda home: on_mini(command="doctor", signs=make(home)),
            exit=0,
            says=("warning  expert signs:", f"has the content of the {twin}"),
        ),
    ]


HEAD = torch.randn(10, 64)
REPORTS = [
    *refused(
        "a LoRA without its scale",
        lora,
        "LoRA that is not merged",
        "lora_A.default.weight",
        "adapter_config.json",
    ),
    *refused(
        "an adapter beside the weights", adapter, "LoRA", "adapter_model.safetensors", "merge_and_unload"
    ),
    *refused("8-bit weights", eight_bit, "quantised with bitsandbytes (8 bit)", "torch.int8"),
    *refused(
        "an image classifier of Hugging Face", classifier, "classifier.weight", "CLIPForImageClassification"
    ),
    opens("torch.compile in Lightning", pickled({"state_dict": under("model._orig_mod.", expert())})),
    opens(
        "model-soups' wrapper",
        pickled(under("module.model.", expert()) | {"module.classification_head.weight": HEAD}),
        "holds a head (classification_head.weight), which is not used",
    ),
    opens("clip.visual.state_dict()", pickled({k.removeprefix("visual."): v for k, v in expert().items()})),
    opens(
        "a model and its moving average",
        pickled({"model": expert(), "ema": expert("signs")}),
        "taken is model",
        "::ema",
    ),
    *contradicts(
        "another activation",
        described(config={**CONFIG, "hidden_act": "quick_gelu"}),
        "activation: the backbone says gelu",
        "config.json: hidden_act) says quick_gelu",
        "backbone.model.quick_gelu=true",
    ),
    *contradicts(
        "other heads", described(config={**CONFIG, "num_attention_heads": 2}), "heads: the backbone says 4"
    ),
    *contradicts(
        "another mean than the base's",
        described(preprocessor_config={"image_mean": HALF}),
        "mean: the base",
        "open_clip_config.json: mean",
        "digits",
        "(0.5, 0.5, 0.5)",
    ),
    Report(
        "evaluate: a checkpoint with another mean than the base's",
        lambda home: [
            "evaluate",
            *on_mini(f"checkpoint={described(preprocessor_config={'image_mean': HALF})(home)}")[1:],
        ],
        says=("mean: the backbone", "the checkpoint", "(0.5, 0.5, 0.5)"),
    ),
    Report(
        "convert: what is said beside the weights",
        lambda home: ["convert", str(described(config=CONFIG)(home)), "--out", str(home / "x.safetensors")],
        exit=0,
        says=("does not come along", "config.json: hidden_act"),
    ),
    opens("a configuration that agrees", described(config=CONFIG)),
    *contradicts(
        "an expert at 48 px",
        at_48,
        "positions are those of 48 px",
        "backbone.image_size=48",
        "resize_positions=true",
    ),
    Report(
        "48 px on weights of 32 px",
        lambda home: on_mini("backbone.model.vision_cfg.image_size=48"),
        says=("backbone says 48", "backbone.image_size=32", "resize_positions=true"),
    ),
    Report(
        "48 px, positions resized",
        lambda home: on_mini("backbone.image_size=48", "backbone.resize_positions=true", digits=at_48(home)),
        exit=0,
    ),
    *alike(
        "the base in the place of an expert", lambda home: saved(home / "x", open_clip_to_hf(base())), "base"
    ),
    *alike(
        "an expert twice, once in bfloat16",
        lambda home: saved(home / "x", {k: v.bfloat16() for k, v in expert().items()}),
        "expert digits",
    ),
    Report(
        "another placeholder than {task}",
        lambda home: on_mini("checkpoints.experts=experts/{name}.safetensors"),
        says=("checkpoints.experts: {name}", "{task} is", "written twice"),
    ),
    Report(
        "braces in a folder's name",
        lambda home: on_mini("checkpoints.experts='run{1}/{task}.safetensors'"),
        says=("checkpoints.experts: {1}", "written twice"),
    ),
]
