"""Activations against the tokens of a hand-written transformer."""

from __future__ import annotations

import pytest
import torch
from restating import DEPTH, images64, pool64
from statistics_by_hand import entering

from adamerge.statistics.activations import collect_activations
from adamerge.statistics.collected import statistics_in_memory


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_they_are_the_mean_magnitude_of_every_token(batch_size: int) -> None:
    pool, images = pool64(), images64(5)["digits"]
    found = collect_activations(
        pool.encoder, pool.base, images, device=torch.device("cpu"), batch_size=batch_size
    )
    expected = entering(pool.base, images)
    assert set(found) == set(expected)
    assert len(found) == 4 * DEPTH
    for key, rows in expected.items():
        by_hand = sum(row.abs() for row in rows) / len(rows)
        torch.testing.assert_close(found[key], by_hand, rtol=1e-9, atol=1e-12)


def test_they_are_the_base_s_on_images_of_each_task() -> None:
    pool, images = pool64(), images64(4)
    key = "visual.transformer.resblocks.1.attn.out_proj.weight"
    seen = statistics_in_memory(pool, images)
    for task in pool.names:
        expected = entering(pool.base, images[task])[key].abs().mean(dim=0)
        torch.testing.assert_close(seen.activation(task, key), expected)
        assert seen.activation(task, "visual.proj") is None
