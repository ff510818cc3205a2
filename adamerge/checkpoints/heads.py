"""Finds a classification head among a checkpoint's tensors, and writes heads as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from adamerge.architecture import HF_CLIP, KEPT
from adamerge.checkpoints.vits import vit_names
from adamerge.errors import CheckpointError
from adamerge.merging.head import Head

# Where trainers put a linear classifier: saved alone, the task-vectors classes, timm and Lightning, torchvision, HF.
PREFIXES = ("", "classification_head.", "head.", "fc.", "classifier.")
# A file says so where its head takes features as they are: the attribute of a pickled ClassificationHead, an entry of
# a saved mapping, or a tensor of safetensors. Where none says anything, features are normalised.
NORMALIZE = "normalize"
_HF = HF_CLIP.bare(HF_CLIP.patches)
_ENCODER = (*(names.patches for names in KEPT), _HF)


def head_prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which `state` has a classifier's weight (classes, d)."""
    weights = {prefix: state.get(f"{prefix}weight") for prefix in PREFIXES}
    return [prefix for prefix, weight in weights.items() if weight is not None and weight.ndim == 2]


def is_head(state: Mapping[str, Tensor]) -> bool:
    """Whether `state` is a head and nothing else."""
    found = head_prefixes(state)
    return len(found) == 1 and not _beside(state, found[0])


def head_of(state: Mapping[str, Tensor], source: str, normalize: bool | None = None) -> Head:
    """The head among a checkpoint's tensors, in float32; a bias of zeros is none.

    Args:
        normalize: whether features are brought to length 1 before it; None: as the file says. Where that says nothing
            either, they are, but not before the classifier of a plain vision transformer.

    Raises:
        CheckpointError: no head, several, or one that would be only a part of what classifies; or the file says
            otherwise than `normalize`.
    """
    found = head_prefixes(state)
    if not found:
        raise CheckpointError(
            f"{source} holds no classification head: a tensor 'weight' (classes, d) is expected, with a 'bias' "
            f"(classes,) where there is one.\n  Both may stand below {', '.join(PREFIXES[1:])}"
        )
    if len(found) > 1:
        names = ", ".join(f"{prefix}weight" for prefix in found)
        raise CheckpointError(
            f"{source} holds {len(found)} heads: {names}.\n  Save the one that is meant alone."
        )
    (prefix,) = found
    others = _beside(state, prefix)
    if others and not any(key.endswith(_ENCODER) for key in others) and vit_names(state) is None:
        raise CheckpointError(
            f"{source} holds more than a linear head: {', '.join(others[:4])}{', ...' if others[4:] else ''} "
            f"beside {prefix}weight.\n  Only one linear layer can be applied; save its weight and bias alone."
        )
    if prefix == "classifier." and any(key.endswith(_HF) for key in others):
        raise CheckpointError(
            f"{source} is a Hugging Face image classifier: its classifier.weight acts on the mean of the last "
            "patch tokens, not on CLIP's projected features.\n  Give a head trained on the image embeddings."
        )
    head = _checked(state, prefix, source)
    said = says_normalize(state)
    if normalize is not None and said not in (None, normalize):
        raise CheckpointError(
            f"{source} says {prefix}{NORMALIZE}={said}, and checkpoints.normalize={normalize}.\n"
            "  Leave the option out, or correct the file."
        )
    usual = vit_names(state) is None
    return replace(head, normalize=next(v for v in (normalize, said, usual) if v is not None))


def leaves_open(state: Mapping[str, Tensor], head: Head) -> bool:
    """Whether nothing tells if features are normalised before a head that was trained, as its bias shows."""
    return head.bias is not None and says_normalize(state) is None and vit_names(state) is None


# What is said of such a head.
LEFT_OPEN = (
    "features are brought to length 1 before it, as CLIP does, and nothing says whether it was trained so"
)
SETTLED_BY = "checkpoints.normalize=false takes them as they are; checkpoints.normalize=true settles it."


def says_normalize(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a head's file says that features are normalised before it; None where it says nothing."""
    flags = [
        state[f"{prefix}{NORMALIZE}"] for prefix in head_prefixes(state) if f"{prefix}{NORMALIZE}" in state
    ]
    return bool(flags[0]) if flags else None


def _checked(state: Mapping[str, Tensor], prefix: str, source: str) -> Head:
    weight, bias = state[f"{prefix}weight"], state.get(f"{prefix}bias")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source}: {prefix}{name} is of type {kind}; floating-point numbers are expected.\n"
                "  A quantised head has to be saved in float again."
            )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{source}: {prefix}bias is {tuple(bias.shape)}, expected ({len(weight)},) "
            f"beside {prefix}weight {tuple(weight.shape)}."
        )
    return Head(weight.float(), bias.float() if bias is not None and bool(torch.any(bias != 0)) else None)


def _beside(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """The keys that are no part of the head at `prefix`."""
    own = {f"{prefix}{name}" for name in ("weight", "bias", NORMALIZE)}
    return [key for key in state if key not in own]


def tensors_of_head(head: Head, weight: str = "weight", prefix: str = "") -> dict[str, Tensor]:
    """A head as tensors: `weight`, and only where they say something `<prefix>bias` and `<prefix>normalize`."""
    tensors = {weight: head.weight}
    if head.bias is not None:
        tensors[f"{prefix}bias"] = head.bias
    if not head.normalize:
        tensors[f"{prefix}{NORMALIZE}"] = torch.tensor(False)
    return tensors


def tensors_of_heads(heads: Mapping[str, Head]) -> dict[str, Tensor]:
    """Heads as the tensors of one file: `<task>` (classes, d), `<task>.bias` (classes,), `<task>.normalize`."""
    tensors: dict[str, Tensor] = {}
    for task, head in heads.items():
        tensors |= tensors_of_head(head, task, f"{task}.")
    return tensors


def heads_of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Head]:
    """The heads of such a file."""
    heads = {}
    for task, weight in tensors.items():
        if weight.ndim == 2:
            flag = tensors.get(f"{task}.{NORMALIZE}")
            heads[task] = Head(weight, tensors.get(f"{task}.bias"), True if flag is None else bool(flag))
    return heads
