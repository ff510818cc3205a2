"""Reports of weight files: what is in them, beside them and around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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


HEAD = torch.randn(10, 64)
REPORTS = [
    *refused(
        "an unmerged LoRA", lora, "LoRA that is not merged", "lora_A.default.weight", "merge_and_unload"
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
