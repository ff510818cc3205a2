"""The backbone of weights that come without one: from their shapes, and from what lies beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adamerge.architecture import OPEN_CLIP
from adamerge.checkpoints import guess_architecture
from adamerge.checkpoints.stated import Stated
from adamerge.checkpoints.vits import is_plain
from adamerge.errors import PoolError
from adamerge.models.clip import Model
from adamerge.models.pictures import PictureRules
from adamerge.models.registers import KEY as REGISTERS

log = logging.getLogger(__name__)


def guess(origin: Mapping[str, Tensor], stated: Stated, pictures: PictureRules | None = None) -> Model:
    """An open_clip configuration for an encoder's tensors (open_clip keys).

    What shapes cannot tell is taken from the files beside the weights; what these do not say either is that of OpenAI's
    CLIP, and the warning names it.

    Raises:
        PoolError: a trunk of timm's of which the files say no name.
    """
    shape, facts = guess_architecture(origin), stated.facts
    if shape.trunk:
        return _trunk(shape.name, shape.embed_dim, facts)
    heads = facts.get("heads", shape.heads)
    plain = is_plain(origin)
    quick = facts.get("activation", "gelu" if plain else "quick_gelu") == "quick_gelu"
    guessed = []
    if "heads" not in facts:
        guessed.append(f"{heads} attention head{'s' * (heads > 1)} of {shape.width // heads}")
    if "activation" not in facts:
        guessed.append("GELU" if plain else "QuickGELU")
    if pictures is None and not {"mean", "std"} <= facts.keys():
        guessed.append("CLIP's mean and standard deviation of pictures")
    if "image_size" not in facts:
        guessed.append(f"pictures resized to {shape.image} px and cropped")
    if guessed:
        log.warning(
            "No backbone given: taken as %s. Shapes do not tell the following, which is as %s have it: %s. "
            "Give a backbone, or the config.json or open_clip_config.json beside the weights.",
            shape.name, "plain vision transformers mostly" if plain else "OpenAI's models", "; ".join(guessed),
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
            **_mlp(origin, shape.width),
            **({REGISTERS: len(origin[OPEN_CLIP.registers])} if OPEN_CLIP.registers in origin else {}),
            **({"ls_init_value": 1e-5} if f"{OPEN_CLIP.block(0)}.{OPEN_CLIP.scales[0]}" in origin else {}),
            **(
                {"no_ln_pre": True, "norm_kwargs": facts.get("vision_cfg.norm_kwargs", {"eps": 1e-6})}
                if plain
                else {}
            ),
        },
        "text_cfg": {"context_length": 77, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1},
    }


def _trunk(looks: str, embed_dim: int, facts: Mapping[str, Any]) -> Model:
    """A trunk of timm's, whose name no shape tells."""
    start = "vision_cfg."
    vision = {fact.removeprefix(start): value for fact, value in facts.items() if fact.startswith(start)}
    if "timm_model_name" not in vision or "image_size" not in facts:
        raise PoolError(
            f"No backbone given, and shapes do not tell which of timm's models it is: {looks}.\n"
            "  Give open_clip's name of the whole model, such as ViT-B-16-SigLIP, or put open_clip_config.json beside "
            "the weights."
        )
    return {"embed_dim": embed_dim, "vision_cfg": {**vision, "image_size": facts["image_size"]}}


def _mlp(origin: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    """How wide the MLP is, where it is not four times as wide as a token."""
    hidden = len(origin[OPEN_CLIP.mlp_keys(0)["fc_weight"]])
    return {} if hidden == 4 * width else {"mlp_ratio": hidden / width}
