"""FeatCal: a merge is calibrated block by block, in closed form, on unlabeled images (arXiv 2605.13030)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adamerge.merging.task_vectors import TaskVectors, TensorRule, about_base, observed
from adamerge.merging.walk import BlockMoments, Moments, Walk
from adamerge.rules.post import PostRule, TensorPost

# The least norm of second moments, what is added to the ridge, and the least determinant, as the authors have them.
_FLOOR = 1e-8
State = dict[str, Tensor]


@dataclass(frozen=True)
class FeatCal(PostRule):
    """From the first block on, each linear layer becomes the one that on the merge's own tokens s, as the blocks before
    it give them now, is nearest to what expert t gives on tokens between its own and these,

        x_t = teacher * e_t + (1 - teacher) * s_t       C_t = mean s s^T,   D_t = mean s x_t^T,   f_t = || C_t ||_F

        (sum_t C_t / f_t + ridge I) W^T = sum_t D_t W_t^T / f_t + ridge A^T
        b = (sum_t (b_t + W_t mean x_t - W mean s_t) / f_t + ridge A_b) / (sum_t 1 / f_t + ridge)

    near the anchor A = theta_0 + anchor (theta_merged - theta_0), the merge seen further from the pre-trained base.
    Each norm's gain g and bias b are, channel by channel, nearest to the experts' g_t z + b_t on the merge's z, which
    is what it has before gain and bias. Then the merge's tokens go on through the new block, the experts' through
    their own.

    Query, key and value are linears of their own. In the last block tokens other than the class token weigh 0.01, but
    for keys and values. What lies outside of the blocks stays as the rule has it, and so do tensors that no expert
    changed, a gain whose bias is one of them, and LayerScale. It gives one merged vector; the rule passes over the
    tensors twice. Tokens of all images wait in memory, twice: tasks x images x tokens x width x 8 bytes. Source:
    egangu/featcal.

    Args:
        ridge: how strongly the anchor pulls.
        anchor: how far out it is; 1 is the merge. The paper's text says 2, the authors' code 2.2.
        teacher: the expert's share of the tokens that it answers on. The paper's text says 0.3, the code 0.25.

    Raises:
        PoolError: without images; an encoder without blocks that run one by one.
    """

    needs = "images"
    merges = True

    ridge: float = 0.05
    anchor: float = 2.2
    teacher: float = 0.25

    def __post_init__(self) -> None:
        if not self.ridge > 0.0:
            raise ValueError(f"ridge is how strongly the anchor pulls, above 0, not {self.ridge}")
        if not 0.0 <= self.teacher <= 1.0:
            raise ValueError(f"teacher is a share, in [0, 1], not {self.teacher}")

    def prepare(self, vectors: TaskVectors, rule: TensorRule, coefficient: float) -> TensorPost:
        merged = _merged(vectors, rule, coefficient)
        with observed(vectors).walk(merged) as walk:
            calibrated = self._calibrated(walk, about_base(vectors), merged)

        def of_tensor(key: str, stack: Tensor, found: Tensor) -> Tensor:
            if key not in calibrated:
                return coefficient * found.sum(dim=0, keepdim=True)
            return (calibrated[key] - vectors.base(key)).unsqueeze(0)

        return of_tensor

    def _calibrated(self, walk: Walk, vectors: TaskVectors, merged: State) -> State:
        """The new tensors of all blocks, by key."""
        found: State = {}
        for index in range(walk.blocks):
            block = _Block(self, vectors, merged)
            for row, name in enumerate(vectors.names):
                block.add(row, walk.moments(index, name))
            new = block.solved()
            walk.go_on(index, new)
            found |= new
        return found


class _Block:
    """The layers of one block, of which no more is held than sums over the tasks."""

    def __init__(self, options: FeatCal, vectors: TaskVectors, merged: State) -> None:
        self._options, self._vectors, self._merged = options, vectors, merged
        self._experts: State = {}
        self._linears: dict[str, list[_Linear]] = {}
        self._norms: dict[str, _Norm] = {}

    def add(self, row: int, moments: BlockMoments) -> None:
        """What the images of expert number `row` left."""
        for key, parts in moments.linears.items():
            layers = self._linears.setdefault(key, [_Linear(self._options.teacher) for _ in parts])
            weights = self._expert(row, key).chunk(len(parts))
            biases = self._expert(row, _bias_of(key)).chunk(len(parts))
            for layer, part, weight, bias in zip(layers, parts, weights, biases, strict=True):
                layer.add(part, weight, bias)
        for key, (square, mean) in moments.norms.items():
            norm = self._norms.setdefault(key, _Norm())
            norm.add(square.double(), mean.double(), self._expert(row, key), self._expert(row, _bias_of(key)))

    def solved(self) -> State:
        """The new tensors by key."""
        found: State = {}
        for key, layers in self._linears.items():
            found |= self._linear(key, layers)
        for key, norm in self._norms.items():
            if _bias_of(key) in self._vectors.keys and key in self._vectors.keys:
                anchors = self._anchor(key), self._anchor(_bias_of(key))
                found |= zip((key, _bias_of(key)), norm.solved(self._options.ridge, *anchors), strict=True)
        return {key: value.to(self._merged[key]) for key, value in found.items()}

    def _linear(self, key: str, layers: Sequence[_Linear]) -> State:
        found: State = {}
        weights = self._merged[key].double().chunk(len(layers))
        if key in self._vectors.keys:
            anchors = self._anchor(key).chunk(len(layers))
            weights = tuple(
                each.weight(self._options.ridge, a) for each, a in zip(layers, anchors, strict=True)
            )
            found[key] = torch.cat(weights)
        if _bias_of(key) in self._vectors.keys:
            anchors = self._anchor(_bias_of(key)).chunk(len(layers))
            found[_bias_of(key)] = torch.cat(
                [
                    each.bias(self._options.ridge, a, weight)
                    for each, a, weight in zip(layers, anchors, weights, strict=True)
                ]
            )
        return found

    def _anchor(self, key: str) -> Tensor:
        base = self._vectors.base(key).double()
        return base + self._options.anchor * (self._merged[key].double() - base)

    def _expert(self, row: int, key: str) -> Tensor:
        if key not in self._vectors.keys:
            return self._vectors.base(key).double()
        if key not in self._experts:
            self._experts[key] = self._vectors.base(key) + self._vectors.stack(key)
        return self._experts[key][row].double()


class _Linear:
    """The normal equations of one linear, summed over the tasks."""

    def __init__(self, teacher: float) -> None:
        self._teacher = teacher
        self._seconds = self._pulled = self._answers = self._means = torch.zeros((), dtype=torch.float64)
        self._inverse = 0.0

    def add(self, moments: Moments, weight: Tensor, bias: Tensor) -> None:
        second, mean = moments.second.double(), moments.mean.double()
        share = 1.0 / max(float(second.norm()), _FLOOR)
        # The teacher's tokens are a mean of the two, and so are their moments.
        cross = torch.lerp(second, moments.cross.double(), self._teacher)
        answered = torch.lerp(mean, moments.expert.double(), self._teacher)
        self._seconds = self._seconds + share * second
        self._pulled = self._pulled + share * (weight @ cross.t())
        self._answers = self._answers + share * (bias + weight @ answered)
        self._means = self._means + share * mean
        self._inverse += share

    def weight(self, ridge: float, anchor: Tensor) -> Tensor:
        """(outputs, inputs)"""
        pull = torch.full((len(self._seconds),), ridge + _FLOOR, dtype=torch.float64).diag()
        wanted = self._pulled + ridge * anchor
        return torch.linalg.solve(self._seconds + pull, wanted, left=False)

    def bias(self, ridge: float, anchor: Tensor, weight: Tensor) -> Tensor:
        """(outputs,) beside the new weight."""
        return (self._answers - weight @ self._means + ridge * anchor) / (self._inverse + ridge)


class _Norm:
    """Two equations for each channel's gain and bias, summed over the tasks."""

    def __init__(self) -> None:
        self._tasks = 0
        self._squares = self._means = self._gains = self._biases = torch.zeros((), dtype=torch.float64)

    def add(self, square: Tensor, mean: Tensor, gain: Tensor, bias: Tensor) -> None:
        self._tasks += 1
        self._squares = self._squares + square
        self._means = self._means + mean
        self._gains = self._gains + square * gain + mean * bias
        self._biases = self._biases + mean * gain + bias

    def solved(self, ridge: float, gain: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The gain and the bias near their anchors."""
        a, b, d = self._squares + ridge, self._means, self._tasks + ridge
        left, right = self._gains + ridge * gain, self._biases + ridge * bias
        determinant = (a * d - b * b).clamp(min=_FLOOR)
        return (d * left - b * right) / determinant, (a * right - b * left) / determinant


def _bias_of(key: str) -> str:
    """The bias beside a weight."""
    return key.removesuffix("weight") + "bias"


def _merged(vectors: TaskVectors, rule: TensorRule, coefficient: float) -> State:
    """Every tensor of what the rule merges."""
    found: State = {}
    for key in vectors.shapes:
        base = vectors.base(key)
        changed = rule(key, base, vectors.stack(key)) if key in vectors.keys else None
        found[key] = base if changed is None else base + coefficient * changed.sum(dim=0).to(base)
    return found
