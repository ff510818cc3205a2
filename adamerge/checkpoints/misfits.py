"""Finds where state dicts differ in keys and shapes, and says it once, with the probable cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from adamerge.architecture import OPEN_CLIP, kept_names
from adamerge.checkpoints.trunks import feature_width

State = Mapping[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """One key: its shape here and the one expected; None where the key is missing on that side."""

    key: str
    found: Shape | None
    expected: Shape | None


@dataclass(frozen=True)
class Sizes:
    """What the shapes of an image encoder tell.

    Attributes:
        image: side of its pictures in pixels; 0 where positions are unknown or none.
        trunk: it is one of timm's below open_clip's names.
    """

    width: int
    blocks: int
    patch: int
    image: int
    embed_dim: int
    trunk: bool = False

    @property
    def heads(self) -> int:
        return max(1, self.width // 64)

    @property
    def name(self) -> str:
        if self.trunk:
            blocks = f"{self.blocks} blocks" if self.blocks else "no transformer blocks"
            return f"a timm trunk of width {self.width}, {blocks}, patch {self.patch}"
        size = {(768, 12): "B", (1024, 24): "L", (1280, 32): "H", (384, 12): "S"}.get(
            (self.width, self.blocks)
        )
        if size:
            return f"ViT-{size}-{self.patch}" + ("" if self.image == 224 else f"-{self.image}")
        return f"a ViT of width {self.width}, {self.blocks} blocks, patch {self.patch}"


def guess_architecture(state: State) -> Sizes:
    """The architecture of an image encoder with open_clip keys, from its shapes.

    Raises:
        KeyError: it is none, or without its patch projection or positions.
    """
    names = kept_names(state) or OPEN_CLIP
    width, _, patch, _ = state[names.patches].shape
    # All but the class token and its like, of which there are too few to make the grid larger.
    side = math.isqrt(state[names.positions].shape[-2] - (names is OPEN_CLIP)) if names.positions else 0
    blocks = len({names.block_of(key) for key in state} - {None})
    return Sizes(width, blocks, patch, side * patch, feature_width(state) or 0, names is not OPEN_CLIP)


def compare_states(expected: State, found: State) -> list[Difference]:
    """Every key that is missing, unexpected or of another shape."""
    differences = []
    for key in dict.fromkeys([*expected, *found]):
        here = tuple(found[key].shape) if key in found else None
        there = tuple(expected[key].shape) if key in expected else None
        if here != there:
            differences.append(Difference(key, here, there))
    return differences


def describe_misfits(
    misfits: Mapping[str, tuple[Sequence[Difference], State]], expected: State, what: str = "the base model"
) -> str:
    """One text for all that do not fit: {name: (differences, its state)} against `expected`."""
    wanted = guess_architecture(expected)
    lines = [f"{_names(list(misfits))} not fit {what} {wanted.name} ({len(expected)} tensors)."]
    causes = set()
    for name, (differences, state) in misfits.items():
        if len(misfits) > 1:
            lines.append(f"  {name}:")
        lines += [f"  {line}" for line in _summary(differences)]
        causes.add(_cause(state, wanted))
    lines += [f"  {cause}" for cause in sorted(cause for cause in causes if cause)]
    return "\n".join(lines)


def _names(names: list[str]) -> str:
    return f"{names[0]} does" if len(names) == 1 else f"{len(names)} checkpoints do"


def _summary(differences: Sequence[Difference]) -> list[str]:
    lines = []
    shapes = [d for d in differences if d.found and d.expected]
    missing = [d for d in differences if d.found is None]
    extra = [d for d in differences if d.expected is None]
    if shapes:
        first = shapes[0]
        lines.append(
            f"{_count(shapes, 'shape')} {_differ(shapes)}, e.g. {first.key} {first.found}, expected {first.expected}."
        )
    if missing:
        lines.append(f"{_count(missing, 'tensor')} missing, e.g. {missing[0].key} {missing[0].expected}.")
    if extra:
        lines.append(f"{_count(extra, 'tensor')} unexpected, e.g. {extra[0].key} {extra[0].found}.")
    return lines


def _count(found: Sequence[Difference], noun: str) -> str:
    return f"{len(found)} {noun}{'' if len(found) == 1 else 's'}"


def _differ(found: Sequence[Difference]) -> str:
    return "differs" if len(found) == 1 else "differ"


def _cause(state: State, wanted: Sizes) -> str:
    try:
        found = guess_architecture(state)
    except (KeyError, ValueError):
        return "It is no CLIP vision transformer, or an incomplete one."
    if found == wanted:
        return ""
    if found.image != wanted.image and replace(found, image=0, embed_dim=0) == replace(
        wanted, image=0, embed_dim=0
    ):
        return (
            f"Its positions are those of {found.image} px images, expected are those of {wanted.image} px.\n"
            f"  Set backbone.image_size={found.image} for a pool of that size; backbone.resize_positions=true brings "
            "positions of another size to the backbone's."
        )
    if found.trunk or wanted.trunk:
        return f"It looks like {found.name}, expected is {wanted.name}.\n  Set the backbone that it has."
    if found.name != wanted.name:
        backbone = (
            found.name.lower().replace("-", "_") if found.name.startswith("ViT") else "<its configuration>"
        )
        return f"It looks like {found.name}.\n  Set backbone={backbone} or give the {wanted.name} checkpoint."
    return (
        f"It has an embedding of {found.embed_dim} and {found.image} px images; "
        f"{wanted.embed_dim} and {wanted.image} expected."
    )
