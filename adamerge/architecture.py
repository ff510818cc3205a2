"""What an image encoder is made of, as data: the one table of its tensors' names, family by family, and its sizes.

Everything above asks here: which tensors lie in a transformer block, which hold query, key and value in one, where the
MLP is. Another family is another `Names`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from adamerge.errors import PoolError

Activation = Literal["gelu", "quick_gelu"]
KINDS = ("weight", "bias")


@dataclass(frozen=True)
class Names:
    """The names of a family's tensors. `{kind}` stands for "weight" or "bias"; those of a block are relative to it.

    Attributes:
        prefix: of every tensor of the image encoder in a whole model.
        patches, class_token, positions: the tensors at the input.
        projection: the matrix behind the last norm; "" where features are taken before any.
        norm_before, norm_after: the norms around the blocks.
        blocks: the container of the transformer blocks.
        norms: before the attention and before the MLP.
        fused: query, key and value one below the other in one tensor; "" where the family has them apart.
        apart: query, key and value as tensors of their own, or what the parts of the fused one are called.
        attention_out: the linear behind the attention.
        mlp, mlp_in, activation, mlp_out: the MLP and its parts.
        registers: the register tokens between class token and patches, where a model has them.
        scales: the gains of LayerScale behind the attention and the MLP, where a model has them.
        pool_fused, pool_apart: key and value of an attention that pools the tokens, in one tensor, and its parts.
        behind: what the names of further tensors behind the blocks begin with.
        ends: the weights (features, ...) of which the first that a model has makes its features, without `projection`.
    """

    prefix: str
    patches: str
    class_token: str
    positions: str
    projection: str
    norm_before: str
    norm_after: str
    blocks: str
    norms: tuple[str, str]
    fused: str
    apart: tuple[str, str, str]
    attention_out: str
    mlp: str
    mlp_in: str
    activation: str
    mlp_out: str
    registers: str = ""
    scales: tuple[str, ...] = ()
    pool_fused: str = ""
    pool_apart: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    def bare(self, key: str) -> str:
        """A tensor's name in a file of the image encoder alone, which goes without the prefix."""
        return key.removeprefix(self.prefix)

    def block_of(self, key: str) -> int | None:
        """The number of the block that a tensor lies in; None for one outside."""
        match = re.match(rf"{re.escape(self.blocks)}\.(\d+)\.", key) if self.blocks else None
        return None if match is None else int(match[1])

    def block(self, index: int) -> str:
        """The name of a block."""
        return f"{self.blocks}.{index}"

    def within(self, key: str) -> str:
        """A tensor's name within its block; "" outside of the blocks."""
        index = self.block_of(key)
        return "" if index is None else key.removeprefix(f"{self.block(index)}.")

    def is_fused(self, key: str) -> bool:
        """Whether a tensor holds several of query, key and value one below the other, in a block or in a pooling behind
        them."""
        return len(self.parts(key)) > 1

    def parts(self, key: str) -> tuple[str, ...]:
        """The names of the query's, key's and value's part of a fused tensor; of another one its own."""
        for fused, apart in ((self.fused, self.apart), (self.pool_fused, self.pool_apart)):
            for kind, name in zip(KINDS, self._of_kinds(fused), strict=False):
                if f".{key}".endswith(f".{name}"):
                    stem = key.removesuffix(name)
                    return tuple(stem + part.format(kind=kind) for part in apart)
        return (key,)

    def is_key_bias(self, name: str) -> bool:
        """Whether it is the bias of the keys, or that part of a fused one, which changes no attention."""
        keys = (self.apart[1], *self.pool_apart[:1])
        return f".{name}".endswith(tuple("." + key.format(kind="bias") for key in keys if key))

    def starts(self) -> tuple[str, ...]:
        """What the name of every tensor of the encoder begins with: a tensor's whole name, or a module's."""
        modules = (self.norm_before, self.norm_after, self.blocks)
        tensors = (self.patches, self.class_token, self.registers, self.positions, self.projection)
        return (*(name for name in tensors if name), *(f"{name}." for name in modules))

    def is_gain(self, key: str) -> bool:
        """Whether a tensor is the gain of a layer norm."""
        return key in (f"{self.norm_before}.weight", f"{self.norm_after}.weight") or self.within(key) in (
            f"{norm}.weight" for norm in self.norms
        )

    def is_output(self, key: str) -> bool:
        """Whether a tensor lies behind the blocks."""
        return key == self.projection or key.startswith((f"{self.norm_after}.", *self.behind))

    def mlp_keys(self, index: int) -> dict[str, str]:
        """The keys of a block's MLP by short names: fc_weight, fc_bias, proj_weight, proj_bias."""
        linears = {"fc": self.mlp_in, "proj": self.mlp_out}
        return {
            f"{short}_{kind}": f"{self.block(index)}.{name}.{kind}"
            for short, name in linears.items()
            for kind in ("weight", "bias")
        }

    def tensors_of_block(self) -> Iterator[str]:
        """The names within a block, in the order of its pass, query, key and value fused where the family has that."""
        before, between = self.norms
        attention = [self.fused] if self.fused else list(self.apart)
        linears = [self.attention_out, between, self.mlp_in, self.mlp_out]
        for name in [f"{before}.{{kind}}", *attention, *(f"{name}.{{kind}}" for name in linears)]:
            yield from self._of_kinds(name)

    def _of_kinds(self, name: str) -> tuple[str, ...]:
        return tuple(name.format(kind=kind) for kind in KINDS) if name else ()


# open_clip's vision transformer: the names that adamerge keeps CLIP's encoders under.
OPEN_CLIP = Names(
    prefix="visual.",
    patches="visual.conv1.weight",
    class_token="visual.class_embedding",
    positions="visual.positional_embedding",
    projection="visual.proj",
    norm_before="visual.ln_pre",
    norm_after="visual.ln_post",
    blocks="visual.transformer.resblocks",
    norms=("ln_1", "ln_2"),
    fused="attn.in_proj_{kind}",
    apart=("attn.q_proj.{kind}", "attn.k_proj.{kind}", "attn.v_proj.{kind}"),
    attention_out="attn.out_proj",
    mlp="mlp",
    mlp_in="mlp.c_fc",
    activation="mlp.gelu",
    mlp_out="mlp.c_proj",
    registers="visual.register_tokens",
    scales=("ls_1.gamma", "ls_2.gamma"),
)
# Hugging Face's CLIPVisionModelWithProjection, whose projection is the transpose of open_clip's.
HF_CLIP = Names(
    prefix="vision_model.",
    patches="vision_model.embeddings.patch_embedding.weight",
    class_token="vision_model.embeddings.class_embedding",
    positions="vision_model.embeddings.position_embedding.weight",
    projection="visual_projection.weight",
    norm_before="vision_model.pre_layrnorm",  # their own spelling
    norm_after="vision_model.post_layernorm",
    blocks="vision_model.encoder.layers",
    norms=("layer_norm1", "layer_norm2"),
    fused="",
    apart=("self_attn.q_proj.{kind}", "self_attn.k_proj.{kind}", "self_attn.v_proj.{kind}"),
    attention_out="self_attn.out_proj",
    mlp="mlp",
    mlp_in="mlp.fc1",
    activation="mlp.activation_fn",
    mlp_out="mlp.fc2",
)
# Plain vision transformers, which are read under open_clip's names: Hugging Face's ViT and DeiT, its DINOv2, timm's.
HF_VIT = Names(
    prefix="vit.",
    patches="vit.embeddings.patch_embeddings.projection.weight",
    class_token="vit.embeddings.cls_token",
    positions="vit.embeddings.position_embeddings",
    projection="",
    norm_before="",
    norm_after="vit.layernorm",
    blocks="vit.encoder.layer",
    norms=("layernorm_before", "layernorm_after"),
    fused="",
    apart=(
        "attention.attention.query.{kind}",
        "attention.attention.key.{kind}",
        "attention.attention.value.{kind}",
    ),
    attention_out="attention.output.dense",
    mlp="",
    mlp_in="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    mlp_out="output.dense",
)
HF_DINOV2 = replace(
    HF_VIT,
    norms=("norm1", "norm2"),
    mlp="mlp",
    mlp_in="mlp.fc1",
    activation="mlp.activation",
    mlp_out="mlp.fc2",
    registers="vit.embeddings.register_tokens",
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
TIMM_VIT = Names(
    prefix="",
    patches="patch_embed.proj.weight",
    class_token="cls_token",
    positions="pos_embed",
    projection="",
    norm_before="norm_pre",
    norm_after="norm",
    blocks="blocks",
    norms=("norm1", "norm2"),
    fused="attn.qkv.{kind}",
    apart=("attn.q.{kind}", "attn.k.{kind}", "attn.v.{kind}"),
    attention_out="attn.proj",
    mlp="mlp",
    mlp_in="mlp.fc1",
    activation="mlp.act",
    mlp_out="mlp.fc2",
    registers="reg_token",
    scales=("ls1.gamma", "ls2.gamma"),
)
VITS = (HF_VIT, HF_DINOV2, TIMM_VIT)

# A model of timm's as the image encoder of a CLIP of open_clip's (SigLIP, PE), which keeps timm's names below its own.
TIMM_TRUNK = replace(
    TIMM_VIT,
    prefix="visual.",
    patches="visual.trunk.patch_embed.proj.weight",
    class_token="visual.trunk.cls_token",
    positions="visual.trunk.pos_embed",
    registers="visual.trunk.reg_token",
    norm_before="visual.trunk.norm_pre",
    norm_after="visual.trunk.norm",
    blocks="visual.trunk.blocks",
    pool_fused="attn_pool.kv.{kind}",
    pool_apart=("attn_pool.k.{kind}", "attn_pool.v.{kind}"),
    behind=("visual.trunk.fc_norm.", "visual.trunk.attn_pool.", "visual.trunk.head.", "visual.head."),
    ends=(
        *("visual.head.proj.weight", "visual.head.mlp.fc2.weight", "visual.trunk.head.weight"),
        *(
            "visual.trunk.head.fc.weight",
            "visual.trunk.attn_pool.proj.weight",
            "visual.trunk.head.norm.weight",
        ),
        *("visual.trunk.fc_norm.weight", "visual.trunk.norm.weight"),
    ),
)
# EVA02, whose MLP is no pair of linears (SwiGLU).
EVA_TRUNK = replace(
    TIMM_TRUNK,
    fused="",
    apart=("attn.q_proj.{kind}", "attn.k_proj.{kind}", "attn.v_proj.{kind}"),
    mlp_in="",
    activation="",
    mlp_out="",
    scales=("gamma_1", "gamma_2"),
)
# A convolutional network, which has no transformer blocks: ConvNeXt.
CONV_TRUNK = replace(
    EVA_TRUNK,
    patches="visual.trunk.stem.0.weight",
    class_token="",
    registers="",
    positions="",
    norm_before="",
    blocks="",
    norms=("", ""),
    apart=("", "", ""),
    attention_out="",
    mlp="",
    scales=(),
)
# What the names of a trunk's tensors begin with, in a whole model.
TRUNK = ("visual.trunk.", "visual.head.proj.", "visual.head.mlp.", "visual.head.pool.")

# Families whose names tell what a tensor is, and those of the encoders that are kept under their own names.
FAMILIES = (OPEN_CLIP, HF_CLIP, TIMM_TRUNK)
KEPT = (OPEN_CLIP, TIMM_TRUNK, CONV_TRUNK)


def kept_names(state: Container[str]) -> Names | None:
    """The family that an image encoder is kept under, of its tensors' names; None for another's names."""
    return next((names for names in KEPT if names.patches in state), None)


def family_of(key: str) -> Names | None:
    """The family in whose blocks a tensor of this name lies; None for a tensor outside of any block."""
    return next((names for names in FAMILIES if names.block_of(key) is not None), None)


def fusing(key: str) -> Names | None:
    """The family in which a tensor of this name holds query, key and value; None where it is an ordinary tensor."""
    return next((names for names in FAMILIES if names.is_fused(key)), None)


@dataclass(frozen=True)
class Architecture:
    """An image encoder's names and sizes.

    Attributes:
        names: of its tensors.
        embed_dim: entries of a feature, behind the projection.
        width: entries of a token.
        tokens: of an image, the class token among them.
        blocks: number of transformer blocks.
        attention_heads: of each.
        patch: side of a patch in pixels.
        activation: of the MLPs.
        rotary: the blocks take the positions beside the tokens (EVA02, PE), so that none of them runs alone.
    """

    names: Names
    embed_dim: int
    width: int
    tokens: int
    blocks: int
    attention_heads: int
    patch: int
    activation: Activation
    rotary: bool = field(default=False, kw_only=True)


def architecture_of(encoder: object) -> Architecture:
    """The architecture of an encoder's module.

    Raises:
        PoolError: a module that does not say.
    """
    found = getattr(encoder, "backbone", None)
    if not isinstance(found, Architecture):
        raise PoolError(
            f"This needs to know the encoder's architecture, which a {type(encoder).__name__} does not say.\n"
            "  Open the pool with adamerge.open_pool, or build the encoder with Backbone.of(model).build()."
        )
    return found
