"""Diagonal Fisher information image by image and class by class, by autograd through a hand-written transformer."""

from __future__ import annotations

import torch
from restating import State, expert, forward
from torch import Tensor

from adamerge.merging import Pool


def fisher_by_hand(pool: Pool, task: str, images: Tensor) -> State:
    """(1/n) sum_x sum_c p_c(x) (d log p_c(x) / d theta)^2."""
    theta = {key: value.clone().requires_grad_() for key, value in expert(pool, task).items()}
    found = {key: torch.zeros_like(value) for key, value in pool.base.items()}
    head = pool.heads[task]
    for image in images:
        feature = forward(theta, image[None])[1][0]
        if head.normalize:
            feature = feature / feature.square().sum().sqrt()
        scores = head.weight @ feature + (0.0 if head.bias is None else head.bias)
        for c in range(len(scores)):
            log_p = scores[c] - scores.exp().sum().log()
            slopes = torch.autograd.grad(log_p, list(theta.values()), retain_graph=True)
            for key, slope in zip(theta, slopes, strict=True):
                found[key] += log_p.detach().exp() * slope**2 / len(images)
    return found
