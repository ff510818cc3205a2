"""LoRA (arXiv 2106.09685): the task vector of a matrix as s B A, and an expert as its base with such on it."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.architecture import HF_CLIP, HF_DINOV2, HF_VIT, OPEN_CLIP, VITS, Names
from adamerge.checkpoints.heads import NORMALIZE, head_prefixes
from adamerge.checkpoints.leftovers import OTHER_FEATURES
from adamerge.checkpoints.lora_names import NAMED, Places
from adamerge.checkpoints.misfits import guess_architecture
from adamerge.checkpoints.peft_config import LoraConfig
from adamerge.checkpoints.vits import is_plain
from adamerge.errors import CheckpointError

State = dict[str, Tensor]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """The factors of one matrix.

    Attributes:
        up: B (out, r), on a convolution (out, r, 1, 1).
        down: A (r, in), on a convolution (r, in, height, width).
        scale: s.
        transposed: the matrix is kept as (in, out), as embeddings are.
    """

    up: Tensor
    down: Tensor
    scale: float
    transposed: bool = False

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the task vector."""
        shape = (self.up.shape[0], *self.down.shape[1:])
        return shape[::-1] if self.transposed else shape

    def delta(self) -> Tensor:
        """s B A in float32, in the shape of the matrix."""
        product = self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())
        return (product.t() if self.transposed else product).reshape(self.shape)


@dataclass(frozen=True)
class Lora:
    """A LoRA as its file has it, and what else the file has: tensors that replace the base's.

    Attributes:
        source: where it came from, for messages.
        config: its scales, and what it was made for.
        factors: by the name of the matrix's module within the adapted model.
        replaced: whole tensors by name: biases, modules_to_save, a head.
    """

    source: str
    config: LoraConfig
    factors: Mapping[str, Factors]
    replaced: Mapping[str, Tensor]

    @property
    def ranks(self) -> str:
        """Its rank, or the least and the greatest, for messages."""
        found = sorted({factors.rank for factors in self.factors.values()})
        return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"

    @property
    def _places(self) -> Places:
        return Places.of([*self.factors, *self.replaced], self.config.model_class, self.source)

    def beside(self) -> State:
        """The tensors that are no part of an image or text encoder, such as a head.

        Raises:
            CheckpointError: names of no known encoder, or a classifier on other features than the encoder's.
        """
        places = self._places
        starts = places.family.starts()
        found = places.beside(self.replaced, lambda key: key.startswith(starts))
        if found and self.config.model_class == "CLIPForImageClassification":
            raise CheckpointError(
                f"{self.source} is of an image classifier of its own: {', '.join(found)}.\n  {OTHER_FEATURES}"
            )
        if places.family in VITS:  # their classifiers take the features as they are
            found |= {f"{prefix}{NORMALIZE}": torch.tensor(False) for prefix in head_prefixes(found)}
        return found

    def on(self, encoder: Mapping[str, Tensor], base: str) -> Adapted:
        """The LoRA laid onto a base.

        Args:
            encoder: the base's image encoder with open_clip's keys; shapes alone suffice.
            base: the base's name, for messages.

        Raises:
            CheckpointError: it is of another architecture, of the text tower alone, or has targets that are not known.
        """
        places = self._places
        if OPEN_CLIP.patches not in encoder:
            raise CheckpointError(
                f"{self.source} is a LoRA, and the base {base} is one of timm's models below a CLIP of open_clip's, "
                "on which none is read yet.\n  Merge it into the weights where it was made (merge_and_unload())."
            )
        on_plain = is_plain(encoder)
        if (places.family in (HF_VIT, HF_DINOV2) and not on_plain) or (places.family is HF_CLIP and on_plain):
            kinds = ("a CLIP", "a plain vision transformer")
            raise CheckpointError(
                f"{self.source} is of {kinds[not on_plain]}, and the base {base} is {kinds[on_plain]}.\n"
                "  Give the base that the adapter was made for."
            )
        to_family, _ = NAMED[places.family]
        known = to_family({k: torch.empty_like(v, device="meta") for k, v in encoder.items()})
        factors: dict[str, Factors] = {}
        unknown: list[str] = []
        text: list[str] = []
        for module, found in self.factors.items():
            key = next((k for k in places.matrices(module) if k in known), None)
            if key is not None:
                _refuse_misfit(self.source, module, found, known[key])
                factors[key] = found
            else:
                (text if places.is_text(module) else unknown).append(module)
        if unknown:
            raise CheckpointError(
                f"{self.source} adapts modules that the base {base} does not have: {', '.join(unknown[:3])}"
                f"{f', ... ({len(unknown)})' if unknown[3:] else ''}.\n  It has modules such as "
                f"{places.family.block(0)}.{places.family.mlp_in}. Give the base that the adapter was made for."
            )
        replaced = {
            key: value for name, value in self.replaced.items() if (key := places.inside(name)) in known
        }
        _tell(self, text, guess_architecture(encoder).name, base)
        beside = places.beside(self.replaced, known.__contains__)
        return Adapted(self, places.family, factors, replaced, beside)


def _refuse_misfit(source: str, module: str, factors: Factors, matrix: Tensor) -> None:
    if factors.shape != tuple(matrix.shape):
        raise CheckpointError(
            f"{source}: the factors of {module}, B {tuple(factors.up.shape)} and A {tuple(factors.down.shape)}, make a "
            f"{factors.shape}; the base has {tuple(matrix.shape)}.\n  Give the base that the adapter was made for."
        )


@dataclass(frozen=True)
class Adapted:
    """A base with a LoRA on it, tensor by tensor.

    Attributes:
        lora: the LoRA.
        family: whose names the keys below are.
        factors: by the key of the matrix.
        replaced: tensors that stand in the place of the base's.
        beside: what is no part of the image encoder, a head for one.
    """

    lora: Lora
    family: Names
    factors: Mapping[str, Factors]
    replaced: Mapping[str, Tensor]
    beside: Mapping[str, Tensor]

    def tensor(self, key: str, base: Tensor) -> Tensor:
        """One tensor of the expert in float32, by open_clip's key, from that of the base."""
        to_family, to_open_clip = NAMED[self.family]
        parts = to_family({key: base.float()})
        if not any(name in self.factors or name in self.replaced for name in parts):
            return base.float()
        return to_open_clip({name: self._part(name, value) for name, value in parts.items()})[key]

    def _part(self, name: str, base: Tensor) -> Tensor:
        factors, given = self.factors.get(name), self.replaced.get(name)
        if factors is None:
            return base if given is None else given.float()
        merged = base + factors.delta()
        if given is None or torch.equal(given.float(), base):
            return merged
        # loralib's eval() merges into the weight and keeps the factors, which are then no part of the model any more.
        rounding = torch.finfo(given.dtype).eps * merged.abs().max()
        if bool(((given.float() - merged).abs() <= 4 * rounding).all()):
            return given.float()
        raise CheckpointError(
            f"{self.lora.source} has {name} beside its factors, and it is neither the base's nor that with the factors "
            "merged into it.\n  Give the base that the adapter was made for, or the merged weights without factors."
        )


def _tell(lora: Lora, text: Collection[str], architecture: str, base: str) -> None:
    """What is read as it is, but may not be what its author meant."""
    if text:
        log.warning(
            "%s adapts %d modules of the text tower too, which are left aside: only image encoders are merged. Heads "
            "that its own text tower made are given as checkpoints.heads.",
            lora.source, len(text),
        )  # fmt: skip
    if lora.config.fan_in_fan_out:
        log.warning("%s: fan_in_fan_out has no effect on linears that are kept as (out, in).", lora.source)
    named = [module.rpartition(".")[2] for module in lora.factors]
    if missing := [t for t in lora.config.targets if t.rpartition(".")[2] not in named and not _has(lora, t)]:
        log.warning("%s holds no factors for its target_modules %s.", lora.source, ", ".join(missing))
    if doubt := _another_base(lora.config.base, architecture, base):
        log.warning("%s was made for %s, but the base %s is %s.", lora.source, lora.config.base, base, doubt)


def _has(lora: Lora, target: str) -> bool:
    """Whether a target is the attention that its factors lie within."""
    return any(f".{module}.".find(f".{target}.") >= 0 for module in lora.factors)


_PUBLISHED = re.compile(
    r"(?:clip-)?vit-(?P<size>base|large|huge|small|[blhs])[-/](?:patch)?(?P<patch>\d+)", re.IGNORECASE
)
_HUB = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)")


def _another_base(named: str, architecture: str, base: str) -> str:
    """What the base is, where the name of the model that an adapter was made for contradicts that."""
    if (match := _PUBLISHED.search(named)) is not None:
        said = f"ViT-{match['size'][0].upper()}-{match['patch']}"
        if not re.match(rf"{said}(\D|$)", architecture):
            return architecture
    hub = _HUB.search(base)
    if (
        hub is not None
        and re.fullmatch(r"[\w.-]+/[\w.-]+", named)
        and named != f"{hub['owner']}/{hub['name']}"
    ):
        return f"{hub['owner']}/{hub['name']}"
    return ""
