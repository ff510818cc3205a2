"""`export run=<folder> format=... out=<folder>`: the merged model for use without adamerge."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import fingerprint
from adamerge.checkpoints.addresses import RANDOM
from adamerge.checkpoints.saving import sidecar
from adamerge.console import plain_console
from adamerge.errors import CheckpointError, ConfigError, PoolError
from adamerge.export.card import Exported, card
from adamerge.export.encoder import write_hf, write_open_clip, write_safetensors
from adamerge.export.heads import final_heads, tasks_with_parts
from adamerge.export.peft import write_peft
from adamerge.export.program import write_onnx, write_torch_export
from adamerge.export.timm import write_timm
from adamerge.files import atomic_write_text, folder_atomically, refuse_occupied
from adamerge.methods.base import Method
from adamerge.models.clip import Model
from adamerge.models.finished import MERGED
from adamerge.models.pretrained import pretrained_state
from adamerge.runs.backbones import model_of, pictures_for
from adamerge.runs.run import Run
from adamerge.runs.trained import load_without_data, save_heads
from adamerge.settings.commands import ExportSettings
from adamerge.tracking.results import read_results
from adamerge.tracking.run_record import Weights, merged_alone, read_lineage

_PROGRAMS = {"onnx": write_onnx, "torch_export": write_torch_export}


def run(settings: ExportSettings) -> None:
    if settings.task is not None and settings.format not in _PROGRAMS:
        raise ConfigError(
            f"task: format={settings.format} holds the encoder of all tasks.\n"
            f"  Leave task out, or choose format={' or '.join(_PROGRAMS)} for the logits of one task."
        )
    source, target = Path(settings.run), Path(settings.out)
    refuse_occupied(target)
    results = None if _merged_alone(source) else read_results(source)
    opened, method, classes = load_without_data(source)
    with folder_atomically(target) as folder:
        _write(settings, opened, method, folder)
        heads = final_heads(method)
        save_heads(folder, heads, classes)
        _copy_state(source, folder)
        parts = (
            []
            if settings.task is not None
            else tasks_with_parts(method, heads, model_of(opened.settings.backbone))
        )
        config = (source / "config.yaml").read_text()
        exported = Exported(
            name=opened.name,
            rule=opened.settings.rule.name,
            backbone=opened.settings.backbone.name,
            run_id=opened.id,
            seed=opened.settings.seed,
            format=settings.format,
            task=settings.task,
            heads=heads,
            parts=parts,
            sources=_sources(source, opened),
            config=config,
            results=results,
        )
        atomic_write_text(folder / "README.md", card(exported, folder))
    console = plain_console()
    console.print(
        f"{opened.name}, run {opened.id}, as {settings.format}: {target}", highlight=False, soft_wrap=True
    )
    for file in sorted(p for p in target.iterdir() if p.suffix != ".sha256"):
        console.print(f"  {file.name}", highlight=False, markup=False)


def _merged_alone(source: Path) -> bool:
    """Whether it is a finished merge without evaluation; its encoder is written last."""
    return merged_alone(source) and sidecar(source / MERGED).exists()


def _write(settings: ExportSettings, opened: Run, method: Method, folder: Path) -> None:
    model = model_of(opened.settings.backbone)
    pictures = pictures_for(opened.settings.backbone)
    if settings.format in _PROGRAMS:
        _PROGRAMS[settings.format](folder, method, model, settings.task)
        return
    try:
        encoder = method.merged_state_dict()
    except PoolError as error:
        hint = "format=torch_export writes such a model whole; with task=<task> it gives that task's logits."
        raise PoolError(f"{error}\n  {hint}") from error
    if settings.format == "open_clip":
        write_open_clip(folder, encoder, model, _whole_base(opened, model), pictures)
    elif settings.format == "peft":
        write_peft(folder, encoder, *_base_of(opened, Path(settings.run)))
    elif settings.format == "hf":
        write_hf(folder, encoder, model, pictures)
    elif settings.format == "timm":
        write_timm(folder, encoder, model, pictures)
    else:
        write_safetensors(folder, encoder, model, pictures)


def _whole_base(opened: Run, model: Model) -> dict[str, Tensor]:
    """The base with its text tower, the only thing that a run folder does not hold."""
    try:
        return pretrained_state(opened.paths["base"], model)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\n  format=open_clip writes the whole CLIP, of which the text tower is the base's; format=hf and "
            "format=safetensors write the image encoder, from the run folder alone."
        ) from error


def _base_of(opened: Run, source: Path) -> tuple[dict[str, Tensor], str]:
    """(the base's image encoder, its public name or ""), on which an adapter goes: the one that the run merged on."""
    place = opened.paths["base"]
    noted = read_lineage(source).uses.get("base")
    if noted is not None and not place.startswith(RANDOM) and fingerprint(place) != noted.identity:
        raise CheckpointError(
            f"The base {place} is not the one that the run was merged on.\n  Put that back: an adapter is the "
            "difference to it. format=hf and format=safetensors need no base."
        )
    model = model_of(opened.settings.backbone)
    base = {k: v for k, v in pretrained_state(place, model).items() if k.startswith(OPEN_CLIP.prefix)}
    named = opened.settings.checkpoints.base
    return base, named.removeprefix("hf-hub:") if named.startswith("hf-hub:") else ""


def _sources(source: Path, opened: Run) -> Mapping[str, Weights]:
    """What was merged, as the run noted it; a run from before that was noted is looked at anew."""
    lineage = read_lineage(source)
    if lineage.data is not None:
        return lineage.uses
    return {name: Weights(path, opened.files[name]) for name, path in opened.paths.items()}


def _copy_state(source: Path, folder: Path) -> None:
    """The trained parts, with their sum."""
    state = source / "state.safetensors"
    for file in (state, sidecar(state)):
        if file.exists():
            shutil.copyfile(file, folder / file.name)
