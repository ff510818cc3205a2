"""Concrete (relaxed Bernoulli) masks on task vectors."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def concrete_mask(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A sample of the relaxed Bernoulli distribution, rescaled to mean 1: m / mean(m).

    Args:
        logits: any shape; differentiable.
        noise: uniform in (0, 1), of the same shape.
        temperature: towards 0 the mask becomes binary.

    Source: Concrete subspace learning, arXiv 2312.06173, section 3; the rescaling is per tensor.
    """
    logistic = noise.log() - (-noise).log1p()
    mask = torch.sigmoid((logits + logistic) / temperature)
    return mask / mask.mean()


def binary_mask(logits: Tensor, noise: Tensor) -> Tensor:
    """A Bernoulli sample, rescaled to mean 1: the limit of `concrete_mask` at temperature 0. All zeros stay zeros.

    Args:
        logits: any shape; an entry is kept with probability sigmoid(logit).
        noise: uniform in (0, 1), of the same shape.
    """
    mask = (logits + noise.log() - (-noise).log1p() > 0).to(logits.dtype)
    return mask / mask.mean().clamp(min=torch.finfo(mask.dtype).tiny)


def uniform_noise(like: Tensor, seed: int, name: str, draw: int) -> Tensor:
    """Uniform noise in (0, 1), a pure function of (seed, name, draw): a mask is drawn again rather than saved."""
    generator = torch.Generator(like.device).manual_seed(zlib.crc32(f"{seed}/{name}/{draw}".encode()))
    noise = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).eps
    return noise.clamp(tiny, 1.0 - tiny)
