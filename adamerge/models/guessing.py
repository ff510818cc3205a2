"""The backbone of weights that come without one: from their shapes, and from what lies beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from adamerge.checkpoints import guess_architecture
from adamerge.checkpoints.stated import Stated
from adamerge.models.clip import Model
from adamerge.models.pictures import PictureRules

log = logging.getLogger(__name__)


def guess(origin: Mapping[str, Tensor], stated: Stated, pictures: PictureRules | None = None) -> Model:
    """An open_clip configuration for an encoder's tensors (open_clip keys).

    What shapes cannot tell is taken from the files beside the weights; what these do not say either is that of OpenAI's
    CLIP, and the warning names it.
    """
    shape, facts = guess_architecture(origin), stated.facts
    heads = facts.get("heads", shape.heads)
    quick = facts.get("activation", "quick_gelu") == "quick_gelu"
    guessed = []
    if "heads" not in facts:
        guessed.append(f"{heads} attention head{'s' * (heads > 1)} of {shape.width // heads}")
    if "activation" not in facts:
        guessed.append("QuickGELU")
    if pictures is None and not {"mean", "std"} <= facts.keys():
        guessed.append("CLIP's mean and standard deviation of pictures")
    if "image_size" not in facts:
        guessed.append(f"pictures resized to {shape.image} px and cropped")
    if guessed:
        log.warning(
            "No backbone given: taken as %s. Shapes do not tell the following, which is as OpenAI's models have it: "
            "%s. Give a backbone, or the config.json or open_clip_config.json beside the weights.",
            shape.name, "; ".join(guessed),
        )  # fmt: skip
    return {
        "embed_dim": shape.embed_dim,
        "quick_gelu": quick,
        "vision_cfg": {
            "image_size": shape.image,
            "layers": shape.blocks,
            "width": shape.width,
            "patch_size": shape.patch,
            "head_width": shape.width // heads,
        },
        "text_cfg": {"context_length": 77, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1},
    }
