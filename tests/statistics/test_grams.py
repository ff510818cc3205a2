"""Gram matrices against the tokens of a hand-written transformer."""

from __future__ import annotations

import pytest
import torch
from conftest import make_pool
from restating import DEPTH, expert, images64, pool64
from statistics_by_hand import naive

from adamerge.errors import PoolError
from adamerge.models.blocks import blocks
from adamerge.statistics.collected import statistics_in_memory
from adamerge.statistics.grams import collect_grams

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_they_are_the_mean_outer_product_of_every_token(batch_size: int) -> None:
    pool, images = pool64(), images64(5)
    task = pool.names[1]
    found = collect_grams(pool.encoder, pool.expert(task), images[task], device=CPU, batch_size=batch_size)
    expected = naive(expert(pool, task), images[task])
    assert set(found) == set(expected)
    assert len(found) == 4 * DEPTH
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12)


def test_each_expert_sees_its_own_images_and_nothing_is_left_in_the_encoder() -> None:
    pool, images = pool64(), images64(4)
    found = statistics_in_memory(pool, images)
    key = "visual.transformer.resblocks.1.attn.out_proj.weight"
    for task in pool.names:
        torch.testing.assert_close(found.gram(task, key), naive(expert(pool, task), images[task])[key])
        assert found.gram(task, "visual.proj") is None
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for block_ in blocks(pool.encoder)
        for module in block_.modules()
    )


def test_another_attention_is_refused() -> None:
    pool = pool64()
    first = blocks(pool.encoder)[0]
    own = first.attn.forward
    first.attn.forward = lambda *inputs, **options: (own(*inputs, **options)[0] * 1.01, None)
    with pytest.raises(PoolError, match="not computed as"):
        collect_grams(pool.encoder, pool.expert(pool.names[0]), images64()[pool.names[0]], device=CPU)
    first.attn = torch.nn.Linear(2, 2)
    first.attn.out_proj = torch.nn.Linear(2, 2)
    with pytest.raises(PoolError, match="MultiheadAttention, not of a Linear"):
        collect_grams(pool.encoder, pool.expert(pool.names[0]), images64()[pool.names[0]], device=CPU)


def test_an_encoder_without_blocks_and_an_expert_without_images_are_refused() -> None:
    pool = make_pool()
    seen = statistics_in_memory(
        pool, {task: torch.zeros(1, 3, 4, 4, dtype=torch.float64) for task in pool.names}
    )
    with pytest.raises(PoolError, match="blocks"):
        seen.gram(pool.names[0], "visual.proj")
    with pytest.raises(PoolError, match="scenes has none"):
        statistics_in_memory(
            pool64(), {task: images for task, images in images64().items() if task != "scenes"}
        )
