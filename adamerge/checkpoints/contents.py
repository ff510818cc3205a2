"""Finds the image encoder in what a file holds: under which entry and prefix, and beside which other copies of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from adamerge.architecture import CONV_TRUNK, HF_CLIP, OPEN_CLIP, TIMM_TRUNK, TRUNK
from adamerge.checkpoints.vits import vit_prefix
from adamerge.errors import CheckpointError

State = dict[str, Tensor]
log = logging.getLogger(__name__)

# The patch embedding, of which an image encoder has one, in open_clip's and in Hugging Face's names; and where the
# vision tower was saved alone, so that its prefix is missing.
_HF_PATCHES = re.escape(HF_CLIP.bare(HF_CLIP.patches))
_OPEN_CLIP = re.compile(rf"(?P<prefix>(?:.+\.)?){re.escape(OPEN_CLIP.patches)}")
_HF = re.compile(rf"(?P<prefix>(?:.+\.)??)(?:{re.escape(HF_CLIP.prefix)})?{_HF_PATCHES}")
_BARE = re.compile(rf"(?P<prefix>(?:.+\.)?){re.escape(OPEN_CLIP.bare(OPEN_CLIP.patches))}")
_TRUNK_PATCHES = "|".join(re.escape(OPEN_CLIP.bare(names.patches)) for names in (TIMM_TRUNK, CONV_TRUNK))
_TRUNK = re.compile(rf"(?P<prefix>(?:.+\.)?){re.escape(OPEN_CLIP.prefix)}(?:{_TRUNK_PATCHES})")
_BARE_TRUNK = re.compile(rf"(?P<prefix>(?:.+\.)?)(?:{_TRUNK_PATCHES})")
_OF_VISION = tuple(OPEN_CLIP.bare(start) for start in OPEN_CLIP.starts())
_OF_TRUNK = tuple(OPEN_CLIP.bare(start) for start in TRUNK)
_AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|moving_average|shadow)([._]|$)")
# Entries of a training checkpoint that are its model.
_MODEL = {"state_dict", "model_state_dict", "model", "net", "module"}


@dataclass(frozen=True)
class Place:
    """Where an image encoder lies: in which entry of the file, behind which prefix; and what the names of its tensors
    begin with where they are without `visual.`."""

    entry: str
    prefix: str
    bare: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Entry and prefix in one, as they are told and asked for."""
        return ".".join(part for part in (self.entry, self.prefix.rstrip(".")) if part)

    @property
    def is_average(self) -> bool:
        return _AVERAGE.search(self.name) is not None


def the_model_in(entries: Mapping[str, State], source: str, part: str = "") -> tuple[State, str]:
    """(tensors without wrappers' prefixes, the name of the place they come from) of the model in a file.

    Of a model and its moving average the model is taken; `part` names another one. What stands beside the model in its
    entry (a head, text tensors, anything else) comes along. A file without an image encoder gives its one state dict.

    Args:
        entries: {entry: state dict}, "" for tensors at the top.

    Raises:
        CheckpointError: several models, of which none is the plain one; or no `part`.
    """
    places = [place for entry, state in entries.items() for place in _places(entry, state)]
    if not places:
        entry = _entry(entries, source, part)
        return without_wrappers(entries[entry]), entry
    place = _chosen(places, source, part)
    others = [p.prefix for p in places if p.entry == place.entry and p != place]
    return _below(place, entries[place.entry], others), place.name


def without_wrappers(state: Mapping[str, Tensor]) -> State:
    """Without prefixes that all keys have: `module.` (data parallel), `_orig_mod.` (compiled), `model.`."""
    result = dict(state)
    for prefix in ("module.", "_orig_mod.", "model.") * 2:
        if result and all(key.startswith(prefix) for key in result):
            result = {key.removeprefix(prefix): value for key, value in result.items()}
    return result


def _places(entry: str, state: Mapping[str, Tensor]) -> Iterator[Place]:
    for key, value in state.items():
        if value.ndim != 4:
            continue
        if match := _OPEN_CLIP.fullmatch(key) or _HF.fullmatch(key) or _TRUNK.fullmatch(key):
            yield Place(entry, match["prefix"])
        elif (match := _BARE.fullmatch(key)) and match["prefix"] + OPEN_CLIP.bare(
            OPEN_CLIP.class_token
        ) in state:
            yield Place(entry, match["prefix"], _OF_VISION)
        elif (prefix := vit_prefix(key, state)) is not None:
            yield Place(entry, prefix)
        elif match := _BARE_TRUNK.fullmatch(key):
            yield Place(entry, match["prefix"], _OF_TRUNK)


def _chosen(places: list[Place], source: str, part: str) -> Place:
    names = ", ".join(place.name or "(top)" for place in places)
    if part:
        found = [p for p in places if part == p.name] or [p for p in places if part in p.name.split(".")]
        if len(found) != 1:
            raise CheckpointError(
                f"{source} holds {len(found) or 'no'} models under '{part}'; it has {names}."
            )
        return found[0]
    plain = [place for place in places if not place.is_average]
    if len(places) == 1 or len(plain) == 1:
        taken = (plain or places)[0]
        if len(places) > 1:
            other = next(p for p in places if p != taken)
            log.warning(
                "%s holds the image encoder %d times (%s): taken is %s. Write <file>::%s for another.",
                source, len(places), names, taken.name or "that at the top", other.name,
            )  # fmt: skip
        elif taken.name:
            log.info("%s: the image encoder is that under %s.", source, taken.name)
        return taken
    raise CheckpointError(
        f"{source} holds the image encoder {len(places)} times, and which one is meant cannot be told: {names}.\n"
        f"  Name one of them behind the file, as in <file>::{places[-1].name}."
    )


def _below(place: Place, state: Mapping[str, Tensor], others: list[str]) -> State:
    """The entry's tensors; other copies of the encoder, whose prefixes are `others`, are left out."""
    found: State = {}
    beside: State = {}
    for key, value in state.items():
        inside = key.startswith(place.prefix)
        longer = [p for p in others if key.startswith(p) and (not inside or len(p) > len(place.prefix))]
        if longer:
            continue
        if inside:
            name = key[len(place.prefix) :]
            found[f"{OPEN_CLIP.prefix}{name}" if name.startswith(place.bare) else name] = value
        else:
            beside[key] = value
    for key, value in beside.items():
        short = _without_common_start(key, place.prefix)
        found[key if short in found else short] = value
    return found


def _without_common_start(key: str, prefix: str) -> str:
    parts, wrappers = key.split("."), prefix.split(".")
    while len(parts) > 1 and wrappers and parts[0] == wrappers[0]:
        parts, wrappers = parts[1:], wrappers[1:]
    return ".".join(parts)


def _entry(entries: Mapping[str, State], source: str, part: str) -> str:
    """The entry of a file without an image encoder: a model's first, then the tensors at the top."""
    if part:
        if part not in entries:
            raise CheckpointError(f"{source} has no '{part}'; it has {', '.join(filter(None, entries))}.")
        return part
    models = [name for name in entries if name and set(name.split(".")) <= _MODEL]
    if models or "" in entries:
        return models[0] if models else ""
    if len(entries) == 1:
        return next(iter(entries))
    raise CheckpointError(
        f"{source} holds several groups of tensors and no image encoder: {', '.join(entries)}.\n"
        f"  Name one of them behind the file, as in <file>::{next(iter(entries))}."
    )
