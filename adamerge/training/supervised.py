"""Supervised training of what is merged where no public weights serve: a small CLIP, and experts fine-tuned from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.optim import Optimizer

from adamerge.errors import RunError
from adamerge.merging import Head
from adamerge.methods.loop import OptimizerFactory, with_initial_lr
from adamerge.models.pictures import PictureRules
from adamerge.rounds.schedule import half_cosine
from adamerge.training.step_module import StepModule

if TYPE_CHECKING:
    import open_clip


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then a half cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return half_cosine(step - warmup, max(1, steps - warmup))


class _Supervised(StepModule):
    """One loss, one optimiser, learning rate as a function of the step, gradients clipped at norm 1."""

    def __init__(self, optimizer: OptimizerFactory, steps: int, warmup: int) -> None:
        super().__init__()
        self._optimizer = optimizer
        self.steps = steps
        self.warmup = warmup

    def configure_optimizers(self) -> Optimizer:
        return with_initial_lr(self._optimizer([p for p in self.parameters() if p.requires_grad]))

    def update(self, loss: Tensor) -> None:
        if not loss.isfinite():
            raise RunError(f"The loss is not finite at step {self.step}.\n  Lower optimizer.lr.")
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * warmup_cosine(self.step, self.steps, self.warmup)
        optimizer.zero_grad()
        self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.take_step(optimizer)
        self.finish_step({"all": loss})


class Pretraining(_Supervised):
    """Contrastive language-image pre-training (CLIP, arXiv 2103.00020).

    An image's positive is its caption; a caption's positives are all images that have it.
    """

    def __init__(
        self,
        clip: open_clip.CLIP,
        tokenize: Any,
        pictures: PictureRules,
        optimizer: OptimizerFactory,
        steps: int,
        warmup: int,
    ) -> None:
        super().__init__(optimizer, steps, warmup)
        self.clip = clip
        self._pictures = pictures
        self._tokenize = tokenize

    def training_step(self, batch: tuple[Tensor, list[str], Tensor], batch_idx: int) -> None:
        pixels, captions, targets = batch
        tokens = self._tokenize(captions).to(pixels.device)
        images = normalize(self.clip.encode_image(self._pictures.normalise(pixels)), dim=-1)
        texts = normalize(self.clip.encode_text(tokens), dim=-1)
        logits = self.clip.logit_scale.exp() * images @ texts.t()
        shared = torch.nn.functional.one_hot(targets, len(captions)).t().float()
        from_texts = cross_entropy(logits.t(), shared / shared.sum(dim=1, keepdim=True))
        self.update((cross_entropy(logits, targets) + from_texts) / 2)
        # CLIP bounds the temperature at 100 so that the training stays stable.
        self.clip.logit_scale.data.clamp_(max=math.log(100))


class Finetuning(_Supervised):
    """Cross-entropy on a task's labels through a frozen head; of the encoder all that asks for gradients is trained."""

    def __init__(
        self, encoder: nn.Module, head: Head, optimizer: OptimizerFactory, steps: int, warmup: int
    ) -> None:
        super().__init__(optimizer, steps, warmup)
        self.encoder = encoder
        self._head = head
        # Buffers follow the module to its device.
        self.register_buffer("head_weight", head.weight, persistent=False)
        self.register_buffer("head_bias", head.bias, persistent=False)
        self.head_weight: Tensor
        self.head_bias: Tensor | None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pixels, labels = batch
        head = replace(self._head, weight=self.head_weight, bias=self.head_bias)
        self.update(cross_entropy(head.logits(self.encoder(pixels)), labels))
