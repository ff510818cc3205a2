"""Classification heads: made from prompts by the pre-trained text tower, or given and checked."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from adamerge.checkpoints import open_checkpoint
from adamerge.checkpoints.heads import LEFT_OPEN, SETTLED_BY, leaves_open, tensors_of_head
from adamerge.merging import Head

if TYPE_CHECKING:
    import open_clip

log = logging.getLogger(__name__)
# A head as it may be given: itself, its weight, weight and bias, a layer, or a checkpoint that holds one.
HeadSource = Head | Tensor | tuple[Tensor, Tensor | None] | nn.Linear | str | Path | Mapping[str, Tensor]


@torch.no_grad()
def zero_shot_head(clip: open_clip.CLIP, tokenize: Any, prompts: Sequence[Sequence[str]]) -> Tensor:
    """The head's weight (classes, d): per class the mean of its prompts' embeddings, times the logit scale.

    Args:
        prompts: for each class its filled-in templates.
    """
    rows = [normalize(clip.encode_text(tokenize(list(texts))), dim=-1).mean(dim=0) for texts in prompts]
    weight = normalize(torch.stack(rows), dim=-1)
    return weight * clip.logit_scale.exp()


def open_head(source: HeadSource, normalize: bool | None = None) -> Head:
    """The head that is given, in float32.

    Features are normalised before it, unless the head, the layer (its attribute `normalize`) or the file says
    otherwise; `Head(weight, bias, normalize=False)` is how to say so.

    Args:
        normalize: the same for a file or state dict that does not say it.

    Raises:
        CheckpointError: a file or state dict that holds no linear head, or says otherwise than `normalize`.
    """
    if isinstance(source, Head):
        return source.map(Tensor.float)
    if isinstance(source, nn.Linear):
        bias = None if source.bias is None else source.bias.detach()
        return Head(source.weight.detach(), bias, bool(getattr(source, "normalize", True))).map(Tensor.float)
    if isinstance(source, Tensor):
        return Head(source.float())
    if isinstance(source, tuple):
        return Head(*source).map(Tensor.float)
    checkpoint = open_checkpoint(source)
    head = checkpoint.head(normalize)
    if normalize is None and leaves_open(checkpoint.state, head):
        log.warning("%s holds a trained head: %s. %s", checkpoint.source, LEFT_OPEN, SETTLED_BY)
    return head


def head_fault(head: Head, width: int) -> str | None:
    """Why a head cannot classify features of this width; None where it can."""
    weight, bias = head.weight, head.bias
    if weight.ndim != 2 or weight.shape[1] != width:
        return f"the head is {tuple(weight.shape)}, expected (classes, {width})."
    if bias is not None and bias.shape != weight.shape[:1]:
        return f"the head's bias is {tuple(bias.shape)}, expected ({len(weight)},)."
    for name, value in (("head", weight), ("head's bias", bias)):
        if value is not None and (count := int((~value.isfinite()).sum())):
            return (
                f"{count} of {value.numel():,} numbers of the {name} are not finite. "
                "The training that wrote it diverged, or the file is damaged."
            )
    return None


def head_digest(head: Head) -> str:
    """sha256 of all that a head's logits depend on."""
    result = hashlib.sha256()
    for name, value in sorted(tensors_of_head(head).items()):
        result.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        result.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()
