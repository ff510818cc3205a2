"""Where the image encoder lies in the names of a model that an adapter was made on, and what its tensors are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adamerge.architecture import HF_CLIP, HF_DINOV2, HF_VIT, OPEN_CLIP, VITS, Names
from adamerge.checkpoints.keys import hf_to_open_clip, open_clip_to_hf
from adamerge.checkpoints.leftovers import is_text
from adamerge.checkpoints.vits import keys_behind_positions, names_in_vit
from adamerge.errors import CheckpointError

State = dict[str, Tensor]
Renaming = Callable[[Mapping[str, Tensor]], State]


# transformers 5 calls the modules of its ViT and DINOv2 anew, and saves whole models under the old names, but not what
# PEFT saves.
_ANEW = tuple(
    (re.compile(pattern), old)
    for pattern, old in (
        (r"\.attention\.q_proj(?=\.|$)", ".attention.attention.query"),
        (r"\.attention\.k_proj(?=\.|$)", ".attention.attention.key"),
        (r"\.attention\.v_proj(?=\.|$)", ".attention.attention.value"),
        (r"\.attention\.o_proj(?=\.|$)", ".attention.output.dense"),
        (r"(?<!encoder\.)(?<!\w)layers\.(\d+)\.mlp\.fc1(?=\.|$)", r"layers.\1.intermediate.dense"),
        (r"(?<!encoder\.)(?<!\w)layers\.(\d+)\.mlp\.fc2(?=\.|$)", r"layers.\1.output.dense"),
        (
            r"(?<!encoder\.)(?<!\w)layers\.(\d+)\.(?=attention\.|intermediate\.|output\.|layernorm_)",
            r"encoder.layer.\1.",
        ),
    )
)


def as_saved(name: str) -> str:
    """The name that Hugging Face saves a module or tensor of a plain vision transformer under."""
    for pattern, old in _ANEW:
        name = pattern.sub(old, name)
    return name


def _plain(names: Names) -> tuple[Renaming, Renaming]:
    """Of a plain vision transformer's blocks and last norm; what lies before them is folded, and no adapter's."""

    def to_family(encoder: Mapping[str, Tensor]) -> State:
        found: State = {}
        for key, value in encoder.items():
            if theirs := names_in_vit(key, names):
                found |= zip(theirs, value.chunk(len(theirs)), strict=True)
        return found

    def to_open_clip(state: Mapping[str, Tensor]) -> State:
        found: State = {}
        blocks = sorted({index for key in state if (index := names.block_of(key)) is not None})
        for key in keys_behind_positions(blocks):
            theirs = names_in_vit(key, names)
            if theirs and all(name in state for name in theirs):
                found[key] = torch.cat([state[name] for name in theirs])
        return found

    return to_family, to_open_clip


# {family: (from open_clip's names to its own, and back)}
NAMED: dict[Names, tuple[Renaming, Renaming]] = {
    OPEN_CLIP: (dict[str, Tensor], dict[str, Tensor]),
    HF_CLIP: (open_clip_to_hf, hf_to_open_clip),
    **{names: _plain(names) for names in VITS},
}


@dataclass(frozen=True)
class Places:
    """Where in the names of an adapted model the image encoder lies.

    Attributes:
        family: whose names they are.
        prefix: before them, such as "model.".
        bare: they go without the family's own prefix.
    """

    family: Names
    prefix: str
    bare: bool

    @classmethod
    def of(cls, names: Collection[str], model_class: str, source: str) -> Places:
        """Where the image encoder lies among the names of modules and tensors.

        Args:
            model_class: the name of the adapted model's class; "" where it is not known.
            source: of the adapter, for messages.

        Raises:
            CheckpointError: there is none, or there are several.
        """
        found = list(dict.fromkeys(cls._all(names)))
        if any(re.search(r"\.layer\.\d+\.(mlp\.fc\d|norm\d)(\.|$)", name) for name in names):
            # DINOv2 in Hugging Face's names is ViT but for its MLP and norms.
            found = [replace(p, family=HF_DINOV2) if p.family == HF_VIT else p for p in found]
        whole = [places for places in found if not places.bare]
        # Beside a `visual.transformer` a bare `transformer` is the text tower, as it is in a whole CLIP.
        vision = whole or [
            p for p in found if not (p.prefix.endswith("text_model.") or _is_whole_clip(p, model_class))
        ]
        if len(vision) == 1:
            return vision[0]
        if vision:
            names = ", ".join(f"{p.prefix}{p.family.blocks}" for p in vision)
            raise CheckpointError(f"{source} adapts several image encoders: {names}.\n  One is expected.")
        if found:
            blocks = found[0].family.bare(found[0].family.blocks)
            raise CheckpointError(
                f"{source} adapts the text tower alone ({found[0].prefix}{blocks}.*), so its image encoder is "
                "the base's.\n  Give an adapter of the image encoder."
            )
        raise CheckpointError(
            f"{source} adapts no vision transformer whose names are known: {', '.join([*names][:3])}.\n"
            f"  Expected are {' or '.join(f'{n.block(0)}.{n.mlp_in}' for n in NAMED)}."
        )

    @classmethod
    def _all(cls, names: Collection[str]) -> Iterator[Places]:
        for name in names:
            for family in NAMED:
                own, blocks = re.escape(family.prefix), re.escape(family.bare(family.blocks))
                # What a text tower has too by such a name tells nothing: its projection, its positions.
                others = (family.patches.removesuffix(".weight"), family.norm_before, family.norm_after)
                outside = "|".join(re.escape(family.bare(module)) for module in others if module)
                if match := re.match(rf"((?:.+\.)??)({own})?({blocks}\.\d+|{outside})(\.|$)", name):
                    yield cls(family, match[1], bare=match[2] is None)
                    break

    def inside(self, name: str) -> str:
        """The family's own name of a tensor, if it is one of the image encoder."""
        rest = self.short(name)
        tensors = (rest, self.family.prefix + rest) if self.bare else (rest,)
        return next((t for t in tensors if t.startswith(self.family.starts())), rest)

    def matrices(self, module: str) -> Iterator[str]:
        """The keys that a module's matrix may have."""
        for name in (f"{module}.weight", module):
            yield self.inside(name)
        for attention in (module, module.removesuffix(".in_proj")):
            key = self.inside(f"{attention}.weight").removesuffix(".weight")
            fused = self.family.fused.format(kind="weight")
            if fused and key.endswith("." + fused.partition(".")[0]):
                yield key.rpartition(".")[0] + "." + fused

    def short(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    def beside(self, tensors: Mapping[str, Tensor], is_part: Callable[[str], bool]) -> State:
        """The tensors, by their short names, that are of neither tower."""
        return {
            self.short(name): value
            for name, value in tensors.items()
            if not (is_part(self.inside(name)) or self.is_text(name))
        }

    def is_text(self, name: str) -> bool:
        """Whether a tensor or module is one of the text tower beside it."""
        rest = self.short(name)
        if self.inside(name).startswith(self.family.starts()):
            return False
        return is_text(rest) or is_text(f"{rest}.weight")


def _is_whole_clip(places: Places, model_class: str) -> bool:
    """Whether bare names of open_clip's are those of a whole CLIP, whose blocks are the text tower's."""
    return places.family is OPEN_CLIP and model_class in ("CLIP", "CustomTextCLIP")
