"""The README.md of an export: what it is, how to load it, where it comes from, how good it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adamerge import __version__
from adamerge.checkpoints.addresses import RANDOM
from adamerge.digests import sha256_of
from adamerge.merging import Head
from adamerge.report.table import to_markdown
from adamerge.settings.paths import PACKAGE
from adamerge.tracking.results import Results
from adamerge.tracking.run_record import Weights

_LIBRARIES = {
    "open_clip": "open_clip",
    "hf": "transformers",
    "timm": "timm",
    "safetensors": "adamerge",
    "peft": "peft",
}
_LOAD = {
    "open_clip": """import open_clip
from PIL.ImageOps import exif_transpose as upright  # pictures were turned by their EXIF tag before
model, _, preprocess = open_clip.create_model_and_transforms("local-dir:<this folder>")
features = model.encode_image(preprocess(upright(picture))[None])""",
    "hf": """from PIL.ImageOps import exif_transpose as upright  # pictures were turned by their EXIF tag before
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
model = CLIPVisionModelWithProjection.from_pretrained("<this folder>")
pixels = CLIPImageProcessor.from_pretrained("<this folder>")(upright(picture), return_tensors="pt")
features = model(**pixels).image_embeds""",
    "timm": """import timm
from PIL.ImageOps import exif_transpose as upright  # pictures were turned by their EXIF tag before
model = timm.create_model("local-dir:<this folder>", pretrained=True).eval()
preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
features = model(preprocess(upright(picture).convert("RGB"))[None])""",
    "peft": """from peft import PeftModel
from transformers import CLIPVisionModelWithProjection
base = CLIPVisionModelWithProjection.from_pretrained("<the base in the table of sources>")
model = PeftModel.from_pretrained(base, "<this folder>").merge_and_unload()
features = model(pixel_values=pixels).image_embeds""",
    "safetensors": """from safetensors.torch import load_file
state = load_file("image_encoder.safetensors")  # the names that open_clip gives a CLIP's image tower""",
    "torch_export": """import torch
program = torch.export.load("model.pt2").module()
{output} = program(images)  # (n, 3, H, W), normalised as CLIP's images are""",
    "onnx": """import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
({output},) = session.run(None, {{"images": images}})  # (n, 3, H, W) float32, normalised as CLIP's images are""",
}
# A plain vision transformer in a Hugging Face folder.
_HF_PLAIN = """from PIL.ImageOps import exif_transpose as upright  # pictures were turned by their EXIF tag before
from transformers import AutoModel, CLIPImageProcessor
model = AutoModel.from_pretrained("<this folder>")
pixels = CLIPImageProcessor.from_pretrained("<this folder>")(upright(picture), return_tensors="pt")
features = model(**pixels).last_hidden_state[:, 0]"""
# "/scratch/me/base", "~/base", "local-dir:/scratch/me/base"; not "https://..." or a name such as "hf-hub:owner/name".
_PLACE = re.compile(r"(?P<prefix>(?:[\w-]+:)?)(?P<path>~?/(?!/).*|~)", re.DOTALL)
_CLASSIFY = """from safetensors.torch import load_file
heads = load_file("heads.safetensors")  # (classes, d) per task, the logit scale in it
logits = {features} @ heads["{task}"].T{bias}"""


@dataclass(frozen=True)
class Exported:
    """What is written about.

    Attributes:
        name: the run's: its method's, or its rule's where nothing was trained.
        task: whose logits the program gives; None for features.
        heads: by task; those of the file heads.safetensors.
        parts: tasks whose results need more than the encoder and the head.
        sources: the weight files that were merged, by name, with the identity of their content.
        config: the run's config.yaml.
        results: None of a merge that was not evaluated.
    """

    name: str
    rule: str
    backbone: str
    run_id: str
    seed: int
    format: str
    task: str | None
    heads: Mapping[str, Head]
    parts: Sequence[str]
    sources: Mapping[str, Weights]
    config: str
    results: Results | None


def card(exported: Exported, folder: Path) -> str:
    """The text, with the hashes of the files that lie in `folder`."""
    tasks = list(exported.heads)
    sections = [
        _front(exported),
        f"# {exported.backbone} merged with {exported.name}\n\n"
        f"One image encoder from {len(tasks)} experts ({', '.join(tasks)}), made by adamerge {__version__}: "
        f"method {exported.name}, rule {exported.rule}, run {exported.run_id}, seed {exported.seed}.",
        f"## Use\n\n{_use(exported, tasks, folder)}",
        f"## Results\n\n{_results(exported.results)}",
        f"## Sources\n\n{_sources(exported.sources)}",
        f"## Config\n\n```yaml\n{_without_places(exported.config)}```",
        *([] if exported.results is None else [f"## Versions\n\n{_versions(exported.results)}"]),
        f"## Files\n\n{_files(folder)}",
    ]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _results(results: Results | None) -> str:
    if results is None:
        return "None: it was merged and not evaluated (evaluate=false)."
    return (
        f"Accuracy in percent on the test images of the suite {results.suite}, and the agreement with each task's "
        f"expert.\n\n{to_markdown(results)}"
    )


def _versions(results: Results) -> str:
    return f"{', '.join(f'{name} {v}' for name, v in results.versions.items())}; {results.device}."


def _front(exported: Exported) -> str:
    library = _LIBRARIES.get(exported.format)
    lines = [f"library_name: {library}"] if library else []
    return "\n".join(["---", *lines, "tags: [adamerge, model-merging, clip]", "---"])


def _use(exported: Exported, tasks: Sequence[str], folder: Path) -> str:
    output = "logits" if exported.task else "features"
    code = _LOAD[exported.format]
    if (
        exported.format == "hf"
        and "CLIP" not in json.loads((folder / "config.json").read_text())["architectures"][0]
    ):
        code = _HF_PLAIN
    code = code.format(output=output) if "{output}" in code else code
    text = f"```python\n{code}\n```"
    if exported.task:
        return f"{text}\n\nThe program gives the logits of the task {exported.task}."
    text += f"\n\n```python\n{_classify(tasks[0], exported.heads[tasks[0]])}\n```"
    text += f"\n\n{_heads(exported.heads)} The class names stand in the metadata of the heads."
    if exported.parts:
        text += (
            f"\n\n**The encoder and the heads alone do not give the results below** for {', '.join(exported.parts)}: "
            "the method's parts for each task (state.safetensors) belong to it. `format=torch_export task=<task>` "
            "exports everything together."
        )
    return text


def _classify(task: str, head: Head) -> str:
    features = "torch.nn.functional.normalize(features, dim=-1)" if head.normalize else "features"
    bias = "" if head.bias is None else f' + heads["{task}.bias"]'
    return _CLASSIFY.format(task=task, features=features, bias=bias)


def _heads(heads: Mapping[str, Head]) -> str:
    """Which heads have a bias, and which take the features as they are."""
    biased = [task for task, head in heads.items() if head.bias is not None]
    plain = [task for task, head in heads.items() if not head.normalize]
    text = (
        f"With a bias, `<task>.bias`, to be added: {', '.join(biased)}." if biased else "No head has a bias."
    )
    if plain:
        text += f" Features are not normalised before the heads of {', '.join(plain)}."
    return text


def _sources(sources: Mapping[str, Weights]) -> str:
    lines = ["| what | file | sha256 |", "|---|---|---|"]
    for name, weights in sources.items():
        made = weights.path.startswith(RANDOM)
        lines.append(
            f"| {name} | {weights.path if made else Path(weights.path).name} | {'' if made else weights.identity} |"
        )
    return "\n".join(lines)


def _files(folder: Path) -> str:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".sha256")
    return "\n".join(["| file | sha256 |", "|---|---|", *(f"| {f.name} | {sha256_of(f)} |" for f in files)])


def _without_places(config: str) -> str:
    """The config without the folders of the machine it comes from: of an absolute path its last name is left."""
    return yaml.safe_dump(_placeless(yaml.safe_load(config)), sort_keys=False, allow_unicode=True, width=120)


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _placeless(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_placeless(inner) for inner in value]
    if isinstance(value, str) and (match := _PLACE.fullmatch(value)):
        path = Path(match["path"])
        if path.is_relative_to(PACKAGE):
            return f"{match['prefix']}<adamerge>/{path.relative_to(PACKAGE)}"
        return f"{match['prefix']}<folder>/{path.name.lstrip('~')}"
    return value
