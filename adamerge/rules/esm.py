"""ESM: experts merged in the directions in which their changes move the outputs (CVPR 2026; arXiv 2606.19164)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.architecture import family_of
from adamerge.errors import PoolError
from adamerge.merging.spectra import Triplets, triplets
from adamerge.merging.task_vectors import Statistics, TaskVectors, TensorRule, observed
from adamerge.rules.rule import Rule
from adamerge.rules.tsv_m import TsvM

_FLATTER = 0.15  # power of the eigenvalues that weigh directions


@dataclass(frozen=True)
class Esm(Rule):
    """For each linear of the blocks but the one behind the attention, with tau_t (outputs, inputs), T tasks, and
    k = int(outputs / T): P_t are the principal directions of what tau_t adds to the outputs on the expert's own tokens,
    with the variances e, and G_t the Gram matrix of these tokens,

        tau_t G_t tau_t^T = P_t diag(e) P_t^T             q = (e / mean e)^0.15, divided by its mean, of the first k
        U = [P_1 q_1 .. P_T q_T]                          A_t = q_t P_t^T tau_t ||tau_t||^2
        A = [A_1 .. A_T] / (mean_t ||tau_t||)^2           column c of A times (||A_c|| / mean_c ||A_c||)^2
        Delta = 2 (mean s(U) polar(U)) (mean s(A) polar(A))          s: the singular values

    All other matrices are merged as by TSV-M, and the rest is averaged. Then each matrix of a block is multiplied with
    the square of its norm over the mean norm of its kind in all blocks. A direction in which a task changes nothing has
    no weight, while the authors' code (kiddo127/ESM) fills up with unit vectors where there are fewer tokens than
    outputs. The merged matrices of the blocks are held at once.

    Args:
        scale: what the merge is multiplied with; the authors choose it on labels, in steps of 0.1 up to 3.

    Raises:
        PoolError: without statistics of images.
    """

    needs = "images"
    gives = "delta"
    own_start = True

    scale: float = 1.0

    def prepare(self, vectors: TaskVectors) -> TensorRule:
        seen, names = observed(vectors), vectors.names
        merged: dict[str, Tensor] = {}
        for key in vectors.keys:
            if _kind(key) is not None:
                merged[key] = _merged(key, vectors.base(key), vectors.stack(key), names, seen)
        shares = _of_their_kind(merged)

        def of_tensor(key: str, base: Tensor, stack: Tensor) -> Tensor:
            found = merged[key] * shares[key] if key in merged else _as_tsv_m(key, base, stack)
            return (self.scale * found).to(stack.dtype).unsqueeze(0)

        return of_tensor


def _merged(key: str, base: Tensor, stack: Tensor, names: tuple[str, ...], seen: Statistics) -> Tensor:
    """(outputs, inputs) of a block's matrix."""
    family = family_of(key)
    assert family is not None, "a tensor of a block"
    if seen.gram(names[0], key) is None or family.within(key) == f"{family.attention_out}.weight":
        return _as_tsv_m(key, base, stack)
    grams = [seen.gram(name, key) for name in names]
    if any(gram is None or len(gram) != stack.shape[2] for gram in grams):
        raise PoolError(f"The statistics of some experts do not fit {key} {tuple(base.shape)}.")
    return essential(stack, torch.stack([gram.to(stack) for gram in grams if gram is not None])).to(stack)


def _as_tsv_m(key: str, base: Tensor, stack: Tensor) -> Tensor:
    return TsvM().of_tensor(key, base, stack).sum(dim=0)


def essential(stack: Tensor, grams: Tensor) -> Tensor:
    """The merge (outputs, inputs) of task vectors (T, outputs, inputs) with Gram matrices (T, inputs, inputs), in
    float64."""
    stack, count = stack.double(), stack.shape[1] // len(stack)
    sizes = torch.linalg.vector_norm(stack, dim=(1, 2))
    if count == 0 or not stack.any():
        return torch.zeros_like(stack[0])
    lefts, rights = [], []
    for vector, gram, size in zip(stack, grams.double(), sizes, strict=True):
        directions, weights = principal(vector, gram, count)
        lefts.append(directions * weights)
        rights.append(weights.unsqueeze(1) * (directions.t() @ vector) * size.square())
    right = torch.cat(rights) / sizes.mean().square()
    columns = torch.linalg.vector_norm(right, dim=0)
    right = right * (columns / columns.mean()).square()
    return 2.0 * _even(torch.cat(lefts, dim=1)) @ _even(right)


def principal(vector: Tensor, gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first directions (outputs, count) of what a task vector adds to the outputs, and their weights (count,)."""
    variances, directions = torch.linalg.eigh(vector @ gram @ vector.t())
    variances, directions = variances.flip(0)[:count], directions.flip(1)[:, :count]
    rounding = torch.finfo(variances.dtype).eps * len(vector) * variances[0]
    variances = torch.where(variances > rounding, variances, 0.0)
    if not variances.any():
        return directions, variances
    weights = (variances / variances.mean()) ** _FLATTER
    return directions, weights / weights.mean()


def _even(matrix: Tensor) -> Tensor:
    """The polar factor times the mean of the singular values."""
    found: Triplets = triplets(matrix).present()
    return found.left @ found.right * found.values.mean()


def _kind(key: str) -> str | None:
    """What a weight of a block's linear is called in every block; None for any other tensor."""
    family = family_of(key)
    if family is None:
        return None
    linears = (family.attention_out, family.mlp_in, family.mlp_out)
    attention = [part.format(kind="weight") for part in (family.fused, *family.apart) if part]
    name = family.within(key)
    return name if name in (*attention, *(f"{linear}.weight" for linear in linears)) else None


def _of_their_kind(merged: dict[str, Tensor]) -> dict[str, float]:
    """The square of each matrix's norm over the mean of its kind."""
    norms = {key: float(torch.linalg.vector_norm(matrix)) for key, matrix in merged.items()}
    kinds: dict[str | None, list[float]] = {}
    for key, norm in norms.items():
        kinds.setdefault(_kind(key), []).append(norm)
    means = {kind: sum(found) / len(found) for kind, found in kinds.items()}
    return {key: (norm / (means[_kind(key)] or 1.0)) ** 2 for key, norm in norms.items()}
