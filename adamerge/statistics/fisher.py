"""Diagonal Fisher information of an expert on unlabeled images: its own predictions say how likely each class is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from adamerge.merging.head import Head
from adamerge.statistics.entering import Images

# Entries of the gradients that are held at once: as many images at a time as that allows.
_AT_ONCE = 1 << 26
# The share of an image's squared gradient, at the feature, that may be left out.
_LEFT_OUT = 1e-9


def collect_fisher(
    encoder: nn.Module,
    state: Mapping[str, Tensor],
    head: Head,
    images: Images,
    *,
    device: torch.device,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """The diagonal Fisher information of each tensor, of its shape:

        F = mean_x sum_c p_c(x) (d log p_c(x) / d theta)^2

    The expectation over the classes is the expert's own and exact, and each image's gradient is squared by itself:
    the square of a batch's summed gradient is not the Fisher information.

    With the columns m_c = sqrt(p_c) d log p_c / d feature of M, an image's sum over the classes depends on M M^T alone.
    What goes back through the encoder is M's left singular vectors times its singular values: no more passes than M has
    columns that matter, one or two where the expert is certain, however many classes there are.

    Args:
        encoder: without storage; its parameters are `state`.
        head: of the expert's task; frozen.
        images: normalised floats, or uint8 pixels.
    """
    state = {key: value.to(device) for key, value in state.items()}
    head = head.map(lambda tensor: tensor.to(device))
    sums = {key: torch.zeros_like(value) for key, value in state.items() if value.is_floating_point()}
    moved = {key: state[key] for key in sums}
    fixed = {key: value for key, value in state.items() if key not in sums}
    at_once = max(1, min(batch_size, _AT_ONCE // sum(value.numel() for value in moved.values())))

    def features(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        found: Tensor = functional_call(encoder, {**fixed, **parameters}, (image.unsqueeze(0),))
        return found.squeeze(0)

    def gradient(image: Tensor, direction: Tensor) -> dict[str, Tensor]:
        back: Callable[..., Any] = vjp(lambda parameters: features(parameters, image), moved)[1]
        found: dict[str, Tensor] = back(direction)[0]
        return found

    for first in range(0, len(images), at_once):
        batch = images[first : first + at_once].to(device)
        with torch.no_grad():
            seen = functional_call(encoder, state, (batch,))
        columns = _columns(head, seen)
        for column in columns.unbind(dim=2):
            reached = column.any(dim=1)
            with sdpa_kernel(SDPBackend.MATH):  # the others would go image by image, with a warning
                squares = vmap(gradient)(batch[reached], column[reached])
            for key, total in sums.items():
                total += squares[key].square().sum(dim=0)
        progress(len(batch))
    return {key: (total / len(images)).cpu() for key, total in sums.items()}


def _columns(head: Head, features: Tensor) -> Tensor:
    """(n, d, columns): for each of the features (n, d) the columns of a matrix with the same M M^T, the largest first;
    zeros where an image needs fewer than another."""

    def log_probabilities(feature: Tensor) -> Tensor:
        return head.logits(feature.unsqueeze(0)).squeeze(0).log_softmax(dim=0)

    with torch.enable_grad():
        slopes = vmap(jacrev(log_probabilities))(features)  # (n, classes, d)
    weights = vmap(log_probabilities)(features).mul(0.5).exp()  # sqrt(p_c)
    left, singular, _ = torch.linalg.svd((weights.unsqueeze(2) * slopes).mT, full_matrices=False)
    squares = singular.square()
    left_behind = squares.flip(1).cumsum(1).flip(1)  # of each column and those after it
    kept = left_behind > _LEFT_OUT * squares.sum(dim=1, keepdim=True)
    columns: Tensor = (left * (singular * kept).unsqueeze(1))[:, :, : int(kept.sum(dim=1).max())]
    return columns
