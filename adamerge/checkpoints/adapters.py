"""Finds a LoRA among a file's tensors: PEFT's names (and its fused attention's), loralib's, and its merged linear's.

Of PEFT's wrapped modules a tensor `<module>.base_layer.bias` is the module's own bias and `<module>.weight` (also
`<module>.modules_to_save.weight`) its new weight. The fused attention writes its factors below `attn` for the rows of
query, key and value together, and below `attn.base_layer.out_proj` for the output.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from adamerge.checkpoints.lora import Factors, Lora
from adamerge.checkpoints.lora_names import as_saved
from adamerge.checkpoints.peft_config import CONFIG, WEIGHTS, LoraConfig, other_kind, read_config
from adamerge.errors import CheckpointError

State = Mapping[str, Tensor]
log = logging.getLogger(__name__)

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.(?P<adapter>(?!weight$|bias$)[^.]+))?(\.weight)?"
)
_OTHERS = {
    "DoRA": re.compile(r".+\.lora_magnitude_vector(\..+)?"),
    "LoRA with a bias of its own (lora_bias)": re.compile(r".+\.lora_B(\..+)?\.bias"),
    "AdaLoRA": re.compile(r".+\.(lora_E|ranknum)(\..+)?"),
    "VeRA": re.compile(r"(.+\.)?vera_.+"),
    "IA3": re.compile(r".+\.ia3_l(\..+)?"),
    "LoHa": re.compile(r".+\.hada_.+"),
    "LoKr": re.compile(r".+\.lokr_.+"),
    "OFT": re.compile(r".+\.b?oft_.+"),
    "an unknown kind of LoRA": re.compile(r"(.*[._])?lora(_.+|\..+)?"),
}
# PEFT's fused attention adds its output's s B A twice, when it merges and in every pass, in training too
# (huggingface/peft#3774, open at 0.21.2): what was trained is the model with both.
_TWICE_UNTIL = (0, 21, 2)
_FUSED_OUT = re.compile(r".+\.base_layer\.out_proj")
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")


def adapter_in(entries: Mapping[str, State], path: Path, name: str, part: str = "") -> Lora | None:
    """The LoRA in a file; None where the file is no adapter.

    Args:
        entries: the file's state dicts by entry, "" for tensors at the top.
        path: the file, beside which the configuration lies.
        name: of the checkpoint, for messages.
        part: the entry that is meant, where there are several.

    Raises:
        CheckpointError: an adapter of another kind, without a configuration, or with tensors that contradict it.
    """
    found = {entry: state for entry, state in entries.items() if any(map(_FACTOR.fullmatch, state))}
    config = path.parent / CONFIG
    if path.name not in WEIGHTS and not (found and config.exists()):
        return None  # a LoRA without a scale is refused as what else the file is
    settings = read_config(config)
    if part:
        found = {entry: state for entry, state in found.items() if entry == part}
    if len(found) != 1:
        _refuse_other_kinds({key: value for state in entries.values() for key, value in state.items()}, name)
        raise CheckpointError(f"{name} holds {len(found) or 'no'} LoRA adapters; one is expected.")
    (state,) = found.values()
    return lora_of(state, settings, name)


def lora_of(state: State, config: LoraConfig, source: str) -> Lora:
    """The LoRA among tensors.

    Raises:
        CheckpointError: as `adapter_in`.
    """
    _refuse_other_kinds(state, source)
    sides: dict[str, dict[str, Tensor]] = {}
    embeddings: set[str] = set()
    adapters: set[str] = set()
    replaced: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _unwrapped(key)
        if match := _FACTOR.fullmatch(name):
            sides.setdefault(match["module"], {})[match["side"]] = value
            adapters.add(match["adapter"] or "")
            embeddings |= {match["module"]} if match["embedding"] else set()
        elif ".original_module." not in name and value.ndim:
            _put(replaced, _plain(name), value, source)
    if len(adapters) > 1:
        raise CheckpointError(
            f"{source} holds several adapters: {', '.join(sorted(adapters))}.\n  Save one alone."
        )
    factors = {}
    for module, pair in sides.items():
        if set(pair) != {"A", "B"}:
            raise CheckpointError(f"{source} is incomplete: {module} has only lora_{', '.join(pair)}.")
        made = _factors(module, pair["B"], pair["A"], config, source, embedding=module in embeddings)
        factors[_plain(module)] = made
    if any(map(_FUSED_OUT.fullmatch, sides)):
        log.warning(
            "%s is on fused attention, whose output's s B A counts %s: PEFT up to %s adds it twice, when it trains and "
            "when it merges; the configuration names PEFT %s.",
            source,
            "twice" if config.version <= _TWICE_UNTIL else "once",
            ".".join(map(str, _TWICE_UNTIL)),
            ".".join(map(str, config.version)) or "of no version",
        )  # fmt: skip
    return Lora(source, config, factors, replaced)


def _put(replaced: dict[str, Tensor], name: str, value: Tensor, source: str) -> None:
    if name in replaced and not torch.equal(replaced[name], value):
        raise CheckpointError(f"{source} holds {name} twice, with different numbers.")
    replaced[name] = value


def _unwrapped(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


def _plain(name: str) -> str:
    """The name that a tensor or module has in the model that was adapted."""
    name = re.sub(r"\.modules_to_save(\.[^.]+)?(?=\.(weight|bias)$)", "", name)
    return as_saved(".".join(piece for piece in name.split(".") if piece != "base_layer"))


def _factors(
    module: str, up: Tensor, down: Tensor, config: LoraConfig, source: str, embedding: bool
) -> Factors:
    # PEFT's fused attention sets the rank and scale of its output, below `base_layer`, by its own name.
    named = module.partition(".base_layer")[0]
    rank, scale = config.rank_of(named), config.scale_of(named)
    if up.ndim < 2 or down.ndim < 2 or any(side != 1 for side in up.shape[2:]):
        raise CheckpointError(
            f"{source}: B {tuple(up.shape)} and A {tuple(down.shape)} of {module} are no factors."
        )
    if up.shape[1] == rank and len(down) > rank and len(down) % rank == 0:
        up = _of_merged_linear(module, up, len(down) // rank, down.shape[1], config.enabled, source)
    elif not up.shape[1] == len(down) == rank:
        raise CheckpointError(
            f"{source}: {module} has B {tuple(up.shape)} and A {tuple(down.shape)}, but rank {rank} by {CONFIG}.\n"
            "  The scale depends on the rank: give the configuration that belongs to these tensors."
        )
    twice = _FUSED_OUT.fullmatch(module) is not None and config.version <= _TWICE_UNTIL
    return Factors(up, down, 2 * scale if twice else scale, transposed=embedding)


def _of_merged_linear(
    module: str, up: Tensor, groups: int, width: int, enabled: tuple[bool, ...], source: str
) -> Tensor:
    """B (3d, groups r) of a merged linear's B (groups d, r), in which every enabled part has factors of its own."""
    enabled = enabled or ((True,) * 3 if groups == 3 else ())
    if len(enabled) != 3 or sum(enabled) != groups:
        raise CheckpointError(
            f"{source}: {module} is a merged linear of loralib with factors for {groups} of query, key and value; "
            f'which ones is not said.\n  Add "enable_lora": [true, false, true] (for query and value) to {CONFIG}.'
        )
    rows, rank = len(up) // groups, up.shape[1]
    whole = up.new_zeros(3 * rows, groups * rank)
    for group, part in enumerate(i for i, has in enumerate(enabled) if has):
        block = up[group * rows : (group + 1) * rows]
        whole[part * rows : (part + 1) * rows, group * rank : (group + 1) * rank] = block
    return whole


def _refuse_other_kinds(state: State, source: str) -> None:
    for kind, key in _kinds(state):
        raise other_kind(source, f"{kind}, as {key} says")


def _kinds(state: State) -> Iterator[tuple[str, str]]:
    names = [name for key in state if not _FACTOR.fullmatch(name := _unwrapped(key))]
    for kind, pattern in _OTHERS.items():
        yield from ((kind, name) for name in names if pattern.fullmatch(name))
