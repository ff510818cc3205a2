"""An encoder of which only low-rank updates are trained (LoRA, arXiv 2106.09685); the base stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerge.architecture import HF_CLIP
from adamerge.checkpoints import open_clip_to_hf
from adamerge.checkpoints.lora import Adapted, Factors, Lora
from adamerge.checkpoints.peft_config import LoraConfig
from adamerge.errors import PoolError

TARGETS = tuple(
    name.removesuffix(".{kind}").rpartition(".")[2]
    for name in (*HF_CLIP.apart, HF_CLIP.attention_out, HF_CLIP.mlp_in, HF_CLIP.mlp_out)
)


class LowRankEncoder(nn.Module):
    """theta_0 + s B A in every block's linears that are named, B = 0 at first. Called as the encoder is.

    Args:
        encoder: the base, which is frozen.
        rank: r of each.
        alpha: s = alpha / r.
        targets: names of linears, as in Hugging Face's CLIP: q_proj, k_proj, v_proj, out_proj, fc1, fc2.
        seed: of A's random numbers.
    """

    def __init__(
        self, encoder: nn.Module, rank: int, alpha: float, targets: Sequence[str] = TARGETS, seed: int = 0
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self._lora = LoraConfig(rank, alpha)
        generator = torch.Generator().manual_seed(seed)
        shapes = {
            key.removesuffix(".weight"): value.shape
            for key, value in open_clip_to_hf(encoder.state_dict()).items()
            if HF_CLIP.block_of(key) is not None and key.endswith(".weight") and key.split(".")[-2] in targets
        }
        if not shapes:
            raise PoolError(
                "lora: adapters are made for the linears of CLIP's and plain vision transformers; this encoder has "
                "none of them under their names.\n  Leave lora out, which trains the whole encoder."
            )
        self.modules_adapted = tuple(shapes)
        # PEFT's and loralib's start: Kaiming's uniform numbers with a = sqrt(5), which is +-1 / sqrt(in).
        self.down = nn.ParameterList(
            (2 * torch.rand(rank, width, generator=generator) - 1) / width**0.5
            for _, width in shapes.values()
        )
        self.up = nn.ParameterList(torch.zeros(height, rank) for height, _ in shapes.values())

    @property
    def factors(self) -> dict[str, Factors]:
        """By the name of the module in Hugging Face's CLIP."""
        scale = self._lora.alpha / self._lora.rank
        pairs = zip(self.modules_adapted, self.up, self.down, strict=True)
        return {module: Factors(up, down, scale) for module, up, down in pairs}

    def forward(self, images: Tensor) -> Tensor:
        factors = {f"{module}.weight": found for module, found in self.factors.items()}
        adapted = Adapted(Lora("this training", self._lora, factors, {}), HF_CLIP, factors, {}, {})
        # The sum base + s B A is formed in full precision, as it is merged in the end.
        with torch.autocast(images.device.type, enabled=False):
            weights = {key: adapted.tensor(key, value) for key, value in self.encoder.named_parameters()}
        features: Tensor = functional_call(self.encoder, weights, (images,))
        return features
