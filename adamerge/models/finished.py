"""What a finished model predicts from, as a file: its pool without the experts.

Beside a merged encoder that lies in a file of its own, `inference.safetensors` holds the heads, and what of the task
vectors the model goes on to use: in the form that the method has them in (one vector with masks and rescalers, factors
of low rank), else, where they are mostly zeros (pruning), as bits and the values where the bits are set. Booleans are
packed, eight to a byte. Nothing is rounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.checkpoints import compare_states, open_tensors, save_tensors
from adamerge.checkpoints.heads import heads_of_tensors, tensors_of_heads
from adamerge.errors import RunError
from adamerge.merging import Coefficients, Pool
from adamerge.merging.compact import Form, LowRank, Masked, as_vectors, forms_of, mapped, parts_of
from adamerge.merging.quantised import Quantised
from adamerge.models.backbone import Backbone

FILE = "inference.safetensors"
MERGED = "merged.safetensors"
_BASE, _VECTORS, _HEADS = "base/", "vectors/", "heads/"
_BITS, _VALUES = "/bits", "/values"
_FORMS: dict[str, Any] = {form.__name__: form for form in (Masked, LowRank, Quantised)}


def save_finished(folder: Path, pool: Pool) -> None:
    """Write a finished pool; a base that is the folder's merged encoder is not written twice."""
    tensors = {_HEADS + key: value for key, value in tensors_of_heads(pool.heads).items()}
    if not (folder / MERGED).exists():
        tensors |= {_BASE + key: value for key, value in pool.base.items()}
    forms = {key: mapped(form, _to_cpu) for key, form in forms_of(pool.vectors).items()}
    for key, form in forms.items():
        tensors |= {_VECTORS + name: value for name, value in _packed(key, form)}
    about = {
        "names": pool.names,
        "unseen": pool.unseen,
        "coefficient": pool.coefficients.number,
        "by_task": pool.by_task,
        "keys": pool.keys,
        "forms": {k: type(form).__name__ for k, form in forms.items() if not isinstance(form, Tensor)},
        "tasks": tuple(pool.heads),
    }
    save_tensors(folder / FILE, tensors, {"pool": json.dumps(about), "format": "pt"})


def open_finished(folder: Path, backbone: Backbone) -> Pool:
    """The pool that `save_finished` wrote, bit for bit.

    Raises:
        CheckpointError: a damaged file.
        RunError: files that are not the backbone's, or not as this version writes them.
    """
    state = open_tensors(folder / FILE)
    merged = folder / MERGED
    base = open_tensors(merged) if merged.exists() else _below(state, _BASE)
    encoder = backbone.build()
    if wrong := compare_states(dict(encoder.state_dict()), base):
        first = wrong[0]
        raise RunError(
            f"{folder} does not hold the encoder of its own config: {len(wrong)} tensors differ, e.g. {first.key} "
            f"{first.found or 'missing'}, expected {first.expected or 'none'}.\n  Run the command again."
        )
    base = {key: base[key] for key in encoder.state_dict()}  # in the module's order
    about = _about(folder / FILE)
    packed = _below(state, _VECTORS)
    heads = heads_of_tensors(_below(state, _HEADS))
    return Pool(
        encoder,
        base,
        as_vectors(
            {
                key: _unpacked(
                    key, packed, about.get("forms", {}).get(key), len(about["names"]), base[key].numel()
                )
                for key in about["keys"]
            }
        ),
        tuple(about["names"]),
        {task: heads[task] for task in about["tasks"]},
        tuple(about["unseen"]),
        Coefficients.everywhere(about["coefficient"]),
        about["by_task"],
        finished=True,
    )


def _about(path: Path) -> dict:  # type: ignore[type-arg]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    try:
        return dict(json.loads(metadata["pool"]))
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} does not say what its tensors are.\n  Run the command again.") from error


def _below(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _packed(key: str, form: Tensor | Form) -> Iterator[tuple[str, Tensor]]:
    """One tensor's task vectors: the parts of a form; dense ones (T, numel) whole, or as bits and values where that is
    smaller."""
    if not isinstance(form, Tensor):
        for name, part in parts_of(form).items():
            if part.dtype == torch.bool:
                yield f"{key}/{name}{_BITS}", _bits(part.flatten())
            else:
                # Tensors of a file share no memory, and a form's may: one rescaler serves every key.
                yield f"{key}/{name}", part.clone(memory_format=torch.contiguous_format)
        return
    where = form != 0
    packed = -(-where.numel() // 8) + int(where.sum()) * form.element_size()
    if packed >= form.nbytes:
        yield key, form
        return
    yield key + _BITS, _bits(where.flatten())
    yield key + _VALUES, form[where]


def _unpacked(
    key: str, packed: Mapping[str, Tensor], form: str | None, count: int, numel: int
) -> Tensor | Form:
    def booleans(name: str) -> Tensor:
        return _from_bits(packed[name], count * numel).view(count, numel)

    if form is not None:
        start, parts = f"{key}/", {}
        for name, part in _below(packed, start).items():
            parts[name.removesuffix(_BITS)] = booleans(start + name) if name.endswith(_BITS) else part
        # Codes fill whole bytes eight by eight: how many there are the base says.
        length = {"numel": numel} if form == Quantised.__name__ else {}
        made: Form = _FORMS[form](**parts, **length)
        return made
    if key in packed:
        return packed[key]
    values = packed[key + _VALUES]
    return torch.zeros(count, numel, dtype=values.dtype).masked_scatter_(booleans(key + _BITS), values)


_WEIGHTS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


def _bits(where: Tensor) -> Tensor:
    """Booleans (n,) as bytes (n / 8, rounded up), the first in the lowest bit."""
    padded = torch.nn.functional.pad(where.to(torch.uint8), (0, -len(where) % 8))
    return (padded.view(-1, 8) * _WEIGHTS).sum(dim=1).to(torch.uint8)


def _from_bits(packed: Tensor, count: int) -> Tensor:
    """The first `count` booleans of packed bytes."""
    return (packed.unsqueeze(1) & _WEIGHTS).ne(0).flatten()[:count]
