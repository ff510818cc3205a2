"""A walk through the blocks of SigLIP, whose tokens all leave, against its restatement; what is watched and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.test_trunks import TASKS, images, opened, siglip, wide
from restating import images64, pool64
from trunks import PE, SIGLIP

from adamerge.errors import PoolError
from adamerge.models.blocks import blocks
from adamerge.statistics.collected import statistics_in_memory
from adamerge.statistics.walking import Walking


@torch.no_grad()
def test_tokens_that_all_leave_weigh_alike_and_go_on_through_what_they_are_given(tmp_path: Path) -> None:
    pool = opened(SIGLIP, tmp_path)[0].map(lambda tensor: tensor.double())
    merged, own = wide(pool.static()), wide(pool.expert("tools"))
    pictures = images(SIGLIP, 5).double()
    with statistics_in_memory(pool, dict.fromkeys(TASKS, pictures)).walk(merged) as walk:
        assert walk.blocks == 2
        walk.moments(0, "tools")
        # The first block is replaced by the expert's, the second stays the merge's.
        first = {key: value for key, value in own.items() if ".blocks.0." in key}
        walk.go_on(0, first)
        found = walk.moments(1, "tools")
    student = siglip({**merged, **first}, pictures)[1]
    teacher = siglip(own, pictures)[1]
    second = [key for key in student if ".blocks.1." in key]
    assert set(found.linears) == set(second)
    for key in second:
        s, e = student[key].flatten(0, 1), teacher[key].flatten(0, 1)
        (moments,) = found.linears[key]
        pairs = ((moments.second, s.T @ s), (moments.cross, s.T @ e))
        sums = ((moments.mean, s.sum(dim=0)), (moments.expert, e.sum(dim=0)))
        for actual, expected in (*pairs, *sums):
            torch.testing.assert_close(actual, expected / len(s), rtol=1e-9, atol=1e-12)
    assert set(found.norms) == {f"visual.trunk.blocks.1.norm{i}.weight" for i in (1, 2)}
    for square, mean in found.norms.values():
        # A norm's tokens have no mean and deviation 1 over their channels.
        torch.testing.assert_close(square.sum() / 16, torch.ones_like(square.sum()), rtol=1e-4, atol=0.0)
        torch.testing.assert_close(mean.sum(), torch.zeros_like(mean.sum()), rtol=0.0, atol=1e-9)


def test_rotary_positions_and_other_norms_are_refused_and_nothing_stays_watched(tmp_path: Path) -> None:
    pool, _ = opened(PE, tmp_path)
    with pytest.raises(PoolError, match="rotary positions"):
        Walking(pool, dict.fromkeys(TASKS, images(PE)), pool.static(), device=torch.device("cpu"))
    small, pictures = pool64(), images64(3)
    with statistics_in_memory(small, pictures).walk(small.base) as walk:
        walk.moments(0, small.names[0])
        assert not any(
            module._forward_hooks or module._forward_pre_hooks
            for block in blocks(small.encoder)
            for module in block.modules()
        )
        blocks(small.encoder)[1].ln_2 = torch.nn.GroupNorm(2, 8)
        with pytest.raises(PoolError, match=r"ln_2: known are layer norms, not a GroupNorm"):
            walk.moments(1, small.names[0])
