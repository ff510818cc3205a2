"""The activation of the MLPs, GELU or QuickGELU, which shapes cannot tell: an expert is surer with its own.

CLIP exists with both, and a model run with the other one loses accuracy without a word, the more the deeper it is. An
expert knows its task, so that the entropy of its predictions tells without labels which of the two it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from adamerge.diagnosis.findings import Finding
from adamerge.label_free import entropies
from adamerge.merging import Head
from adamerge.models.clip import ImageEncoder, Model, build_clip, model_config
from adamerge.models.pictures import PictureRules

IMAGES = 16  # of one task
# Warn only where the other activation is decisively better: a shallow model hardly minds.
_FACTOR, _NATS, _SHARE = 2.0, 0.2, 0.75


def activation(
    task: str,
    expert: Mapping[str, Tensor],
    images: Tensor,
    head_with: Callable[[Model], Head],
    model: Model,
    pictures: PictureRules,
) -> Iterator[Finding]:
    """Compare both activations on a few images of one task.

    Args:
        expert: the task's image encoder.
        images: uint8 (n, 3, H, W).
        head_with: the task's head, made with a backbone's activation where it is made from prompts.
    """
    config = model_config(model)
    quick = bool(config.get("quick_gelu"))
    other: Model = {**config, "quick_gelu": not quick}
    own, theirs = (_entropies(expert, images, head_with(m), m, pictures) for m in (model, other))
    names = {True: "QuickGELU", False: "GELU"}
    text = (
        f"the expert of {task} predicts {len(images)} images with a mean entropy of {own.mean():.2f} nats with "
        f"{names[quick]}, which the backbone has, and {theirs.mean():.2f} with {names[not quick]}"
    )
    decisive = own.mean() > _FACTOR * theirs.mean() and own.mean() - theirs.mean() > _NATS
    if decisive and (theirs < own).double().mean() > _SHARE:
        advice = (
            f"It looks trained with {names[not quick]}: choose the backbone that has it "
            f"(backbone.model.quick_gelu={str(not quick).lower()}, or open_clip's name "
            f"{'without' if quick else 'with'} -quickgelu)."
        )
        yield Finding("warning", "activation", text, advice)
    else:
        yield Finding("ok", "activation", text)


@torch.no_grad()
def _entropies(
    expert: Mapping[str, Tensor], images: Tensor, head: Head, model: Model, pictures: PictureRules
) -> Tensor:
    encoder = ImageEncoder(build_clip(model).visual, pictures).eval()
    # An expert without a projection takes the base's, which is put in by the caller.
    encoder.load_state_dict(dict(expert))
    return entropies(head.logits(encoder(images)))
