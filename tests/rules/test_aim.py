"""AIM restated input by input in float64, its identities, and what is refused."""

from __future__ import annotations

import pytest
import torch
from restating import State, images64, pool64
from small_pools import reordered
from statistics_by_hand import entering
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.aim import Aim
from adamerge.rules.emr import Emr
from adamerge.rules.linear import Pretrained, TaskArithmetic
from adamerge.rules.lines import Lines
from adamerge.rules.post import followed
from adamerge.rules.regmean import RegMean
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties
from adamerge.statistics.collected import Collected, statistics_in_memory

KEY = "visual.transformer.resblocks.0.mlp.c_fc.weight"


def by_hand(pool: Pool, images: dict[str, Tensor], merged: State, omega: float) -> State:
    """Column by column of theta_merged - theta_0; what enters a layer is the base's, token by token."""
    found = dict(merged)
    seen = {task: entering(pool.base, images[task]) for task in pool.names}
    for key in seen[pool.names[0]]:
        loud = [
            sum(float(seen[task][key][:, i].abs().mean()) for task in pool.names) / len(pool.names)
            for i in range(pool.base[key].shape[1])
        ]
        changed = (merged[key] - pool.base[key]).clone()
        for i, one in enumerate(loud):
            changed[:, i] *= 1.0 - one / max(loud) * (1.0 - omega)
        found[key] = pool.base[key] + changed
    return found


def close(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        # A coefficient that is one number is one of float32.
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", [TaskArithmetic(0.3), Ties(0.4), RegMean()])
@pytest.mark.parametrize("omega", [0.0, 0.4])
def test_it_shrinks_each_column_by_how_loud_its_input_is(rule: Rule, omega: float) -> None:
    pool, images = pool64(), images64(5)
    merged = adamerge.merge(pool, rule, images=images)
    found = adamerge.merge(pool, rule, post=Aim(omega), images=images)
    close(found, by_hand(pool, images, merged, omega))
    assert not torch.allclose(found[KEY], merged[KEY])


def test_two_inputs_by_hand() -> None:
    """The loudest of the inputs keeps omega of its change, one of half its loudness (1 + omega) / 2, a mute one all."""
    pool = pool64()
    loud = torch.zeros(8).double()
    loud[0], loud[1] = 4.0, 2.0
    seen = Collected(lambda kind: {task: {KEY: loud} for task in pool.names})
    plain = TaskArithmetic(0.3)(pool).static()
    found = followed(TaskArithmetic(0.3), [Aim(0.4)])(pool, statistics=seen).static()
    share = (found[KEY] - pool.base[KEY]) / (plain[KEY] - pool.base[KEY])
    expected = torch.tensor([0.4, 0.7, 1, 1, 1, 1, 1, 1], dtype=torch.float64).expand(share.shape)
    torch.testing.assert_close(share, expected, rtol=1e-9, atol=1e-9)
    # No other tensor changes, and a base without activations changes none.
    close({k: v for k, v in found.items() if k != KEY}, {k: v for k, v in plain.items() if k != KEY})
    mute = Collected(lambda kind: {task: {KEY: 0.0 * loud} for task in pool.names})
    close(followed(TaskArithmetic(0.3), [Aim(0.4)])(pool, statistics=mute).static(), plain)


def test_omega_one_changes_nothing_and_a_chain_is_one_after_the_other() -> None:
    pool, images = pool64(), images64(3)
    plain = adamerge.merge(pool, Ties(0.4))
    close(adamerge.merge(pool, Ties(0.4), post=Aim(1.0), images=images), plain)
    lines = adamerge.merge(pool, Ties(0.4), post=Lines(0.4))
    found = adamerge.merge(pool, Ties(0.4), post=[Lines(0.4), Aim(0.3)], images=images)
    close(found, by_hand(pool, images, lines, 0.3))


def test_the_order_of_tasks_makes_no_difference_and_no_change_stays_none() -> None:
    pool, images = pool64(), images64(3)
    turned = reordered(pool, range(len(pool.names))[::-1])
    found = [adamerge.merge(each, TaskArithmetic(), post="aim", images=images) for each in (pool, turned)]
    close(found[0], found[1])
    still = Pool(
        pool.encoder,
        pool.base,
        {key: torch.zeros_like(stack) for key, stack in pool.vectors.items()},
        pool.names,
        pool.heads,
    )
    close(adamerge.merge(still, TaskArithmetic(), post="aim", images=images), still.base)


def test_coefficients_are_learned_on_as_many_vectors_and_start_at_the_merge() -> None:
    pool, images = pool64(), images64(3)
    seen = statistics_in_memory(pool, images)
    for rule, names in ((Ties(), pool.names), (RegMean(), ("merged",))):
        ruled = followed(rule, [Aim()])(pool, statistics=seen)
        assert ruled.names == names
        close(AdaMerging(ruled, start=None, clamp=False).double().merged_state_dict(), ruled.static())


def test_what_makes_no_sense_is_refused() -> None:
    pool, images = pool64(), images64(2)
    with pytest.raises(ValueError, match="omega"):
        Aim(omega=1.5)
    with pytest.raises(PoolError, match=r"learns from unlabeled images.*\n.*post="):
        adamerge.merge(pool, "ties", post="aim")
    with pytest.raises(PoolError, match="scenes has none"):
        adamerge.merge(pool, "ties", post="aim", images={t: images[t] for t in ("signs", "digits")})
    with pytest.raises(PoolError, match="origin=base"):
        adamerge.merge(pool, "ties", post="aim", images=images, origin="average")
    with pytest.raises(PoolError, match="keeps one per task"):
        followed(Emr(), [Aim()])
    with pytest.raises(PoolError, match="coefficient 0"):
        adamerge.merge(pool, Pretrained(), post=Aim(), images=images)
