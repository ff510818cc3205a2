"""Which of torch's attentions a pass takes: the fused one, or plain batched products.

On the CPU the backward pass of torch's fused attention is written for float32 and long sequences. In bfloat16 it takes
43 % of a training step of a ViT-S at 65 tokens; plain products, with scores and softmax in float32, take two fifths of
its time forward and backward (120 to 49 ms for a block and 32 images, one core with AMX). A whole step:
`python -m adamerge bench adamerging precision=bf16-mixed`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# Plain products hold a table of tokens x tokens per head. From about this many tokens on it costs more than it saves.
_TOKENS = 160


def suited_attention(like: Tensor, tokens: int) -> AbstractContextManager[None]:
    """Inside the block, attention over `tokens` tokens is computed in the way that is fastest for it.

    Only passes that work in bfloat16 on the CPU are changed: in float32 the two ways differ in the last bits and take
    about the same time.

    Args:
        like: any tensor on the device of the pass.
        tokens: tokens of a sequence.
    """
    if like.device.type == "cpu" and tokens <= _TOKENS and _narrow(like):
        plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return plain
    return nullcontext()


def _narrow(like: Tensor) -> bool:
    """Whether linear layers work in bfloat16: under autocast, or because the numbers are kept in it."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return like.dtype == torch.bfloat16
