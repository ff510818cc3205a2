"""The methods' formulas restated the slow way: a hand-written vision transformer, autograd through every sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from conftest import TASKS, make_vit_pool
from torch import Tensor
from torch.nn.functional import layer_norm, linear, log_softmax, normalize

from adamerge.merging import Pool
from adamerge.methods import Method, experts
from adamerge.methods.loop import Loop
from adamerge.training import Adaptation, Schedule, run_steps

ADAM = partial(torch.optim.Adam, lr=1e-2)
HEADS = 2  # attention heads of the tiny transformer: width 8, head width 4
DEPTH = 2
QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}  # of a Lightning trainer
State = dict[str, Tensor]


def pool64(**options: Any) -> Pool:
    return make_vit_pool(dtype=torch.float64, **options)


def images64(count: int = 4, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {t: torch.randn(count, 3, 4, 4, generator=generator, dtype=torch.float64) for t in TASKS}


def tau(pool: Pool, task: str) -> State:
    row = pool.names.index(task)
    return {key: stack[row].view(pool.base[key].shape) for key, stack in pool.vectors.items()}


def arithmetic(pool: Pool, scale: float = 0.3) -> State:
    """theta_0 + scale * sum_k tau_k."""
    merged = dict(pool.base)
    for task in pool.names:
        for key, vector in tau(pool, task).items():
            merged[key] = merged[key] + scale * vector
    return merged


def expert(pool: Pool, task: str) -> State:
    return {**pool.base, **{key: pool.base[key] + vector for key, vector in tau(pool, task).items()}}


def mlp(x: Tensor, fc: Tensor, fc_bias: Tensor, proj: Tensor, proj_bias: Tensor) -> Tensor:
    hidden = x @ fc.T + fc_bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU
    return hidden @ proj.T + proj_bias


def embed(theta: State, images: Tensor) -> Tensor:
    """Tokens (n, 5, 8) before the first block."""
    v = {key.removeprefix("visual."): value for key, value in theta.items()}
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(len(images), 4, -1)
    x = patches @ v["conv1.weight"].reshape(8, -1).T
    x = torch.cat([v["class_embedding"].expand(len(x), 1, -1), x], dim=1) + v["positional_embedding"]
    return layer_norm(x, (8,), v["ln_pre.weight"], v["ln_pre.bias"])


def block(theta: State, index: int, x: Tensor, mix: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
    stem = f"visual.transformer.resblocks.{index}."
    b = {key.removeprefix(stem): value for key, value in theta.items() if key.startswith(stem)}
    y = layer_norm(x, (8,), b["ln_1.weight"], b["ln_1.bias"])
    q, k, v = (y @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"]).chunk(3, dim=-1)
    heads = [
        torch.softmax(a @ c.transpose(1, 2) / 2.0, dim=-1) @ d
        for a, c, d in zip(q.chunk(HEADS, -1), k.chunk(HEADS, -1), v.chunk(HEADS, -1), strict=True)
    ]
    x = x + torch.cat(heads, dim=-1) @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
    y = layer_norm(x, (8,), b["ln_2.weight"], b["ln_2.bias"])
    if mix is not None:
        return x + mix(index, y)
    return x + mlp(y, b["mlp.c_fc.weight"], b["mlp.c_fc.bias"], b["mlp.c_proj.weight"], b["mlp.c_proj.bias"])


def finish(theta: State, x: Tensor) -> Tensor:
    cls = layer_norm(x[:, 0], (8,), theta["visual.ln_post.weight"], theta["visual.ln_post.bias"])
    return cls @ theta["visual.proj"]


def forward(
    theta: State,
    images: Tensor,
    after: Callable[[int, Tensor], Tensor] = lambda index, x: x,
    mix: Callable[[int, Tensor], Tensor] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Token means behind each block, and the feature."""
    x = embed(theta, images)
    means = []
    for index in range(DEPTH):
        x = after(index, block(theta, index, x, mix))
        means.append(x.mean(dim=1))
    return means, finish(theta, x)


def logits(head: Tensor, feature: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return linear(normalize(feature, dim=-1), head) + bias


def adapter(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Surgery's correction of a feature."""
    return x - torch.relu(x @ down.T) @ up.T


def entropy_of(pool: Pool, theta: State, images: dict[str, Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for task, x in images.items():
        total = total + mean_entropy(logits(pool.heads[task].weight, forward(theta, x)[1]))
    return total


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make().double()


def clones(parameters: Any) -> list[Tensor]:
    return [p.detach().clone().requires_grad_() for p in parameters]


def labels64(count: int = 4) -> dict[str, Tensor]:
    return {task: torch.arange(count) % 3 for task in TASKS}


def labeled64(count: int = 4, seed: int = 1) -> dict[str, Any]:
    images, labels = images64(count, seed), labels64(count)
    return {task: {"images": images[task], "target": (labels[task],)} for task in TASKS}


def mean_entropy(z: Tensor) -> Tensor:
    return -(z.softmax(-1) * log_softmax(z, -1)).sum(-1).mean()


class Given(torch.utils.data.Dataset):
    """The same entries at every step, or those of a list by step."""

    def __init__(self, entries: Any) -> None:
        self.entries = entries

    def __getitem__(self, step: int) -> Any:
        return self.entries[step] if isinstance(self.entries, list) else self.entries


def adapt(
    method: Method,
    objective: Any,
    entries: Any,
    schedule: Schedule,
    loop: Callable[..., Loop] | None = None,
    optimizer: Any = ADAM,
    labeled: Any = None,
) -> Method:
    """Through the method's own loop, or another."""
    teacher = experts(pool64(), method.block_means)
    module = Adaptation(method, objective, optimizer, schedule, None, teacher, labeled=labeled, loop=loop)
    run_steps(module, Given(entries), schedule.steps, trainer=QUIET)
    return method.eval()


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=1e-9, atol=1e-9)
