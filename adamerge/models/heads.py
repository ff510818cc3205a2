"""Zero-shot classification heads made from prompts by the pre-trained text tower (reference 1.9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

if TYPE_CHECKING:
    import open_clip


@torch.no_grad()
def zero_shot_head(clip: open_clip.CLIP, tokenize: Any, prompts: Sequence[Sequence[str]]) -> Tensor:
    """The head's weight (classes, d): per class the mean of its prompts' embeddings, times the logit scale.

    Args:
        prompts: for each class its filled-in templates.
    """
    rows = [normalize(clip.encode_text(tokenize(list(texts))), dim=-1).mean(dim=0) for texts in prompts]
    weight = normalize(torch.stack(rows), dim=-1)
    return weight * clip.logit_scale.exp()
