"""What enters each linear of a hand-written transformer, and its Gram matrix token by token."""

from __future__ import annotations

import torch
from restating import DEPTH, HEADS, State, block, embed
from torch import Tensor
from torch.nn.functional import layer_norm


def entering(theta: State, images: Tensor) -> dict[str, Tensor]:
    """What enters each linear of the blocks, (images * tokens, inputs), by the key of its weight."""
    found: dict[str, Tensor] = {}
    x = embed(theta, images)
    for index in range(DEPTH):
        stem = f"visual.transformer.resblocks.{index}."
        b = {key.removeprefix(stem): value for key, value in theta.items() if key.startswith(stem)}
        y = layer_norm(x, (8,), b["ln_1.weight"], b["ln_1.bias"])
        q, k, v = (y @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"]).chunk(3, dim=-1)
        mixed = torch.cat(
            [
                torch.softmax(a @ c.transpose(1, 2) / 2.0, dim=-1) @ d
                for a, c, d in zip(q.chunk(HEADS, -1), k.chunk(HEADS, -1), v.chunk(HEADS, -1), strict=True)
            ],
            dim=-1,
        )
        after = x + mixed @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
        z = layer_norm(after, (8,), b["ln_2.weight"], b["ln_2.bias"])
        hidden = z @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        rows = {"attn.in_proj_weight": y, "attn.out_proj.weight": mixed, "mlp.c_fc.weight": z}
        found |= {stem + name: value.flatten(0, 1) for name, value in rows.items()}
        found[f"{stem}mlp.c_proj.weight"] = hidden.flatten(0, 1)
        x = block(theta, index, x)
    return found


def naive(theta: State, images: Tensor) -> dict[str, Tensor]:
    """One token after the other."""
    return {
        key: torch.stack([torch.outer(row, row) for row in rows]).sum(dim=0) / len(rows)
        for key, rows in entering(theta, images).items()
    }
