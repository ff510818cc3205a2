"""Task vectors about the experts' average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from post_by_hand import close
from restating import pool64

import adamerge
from adamerge.errors import PoolError
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.ties import Ties


class TestOrigin:
    def test_the_base_is_the_mean_of_the_experts_and_the_vectors_sum_to_zero(self) -> None:
        pool = pool64()
        ruled = TaskArithmetic()(pool, origin="average")
        for key, value in ruled.base.items():
            mean = sum(pool.expert(task)[key] for task in pool.names) / len(pool.names)
            torch.testing.assert_close(value, mean)
        for stack in ruled.vectors.values():
            torch.testing.assert_close(stack.sum(dim=0), torch.zeros_like(stack[0]), atol=1e-12, rtol=0.0)
        for task in pool.names:
            close(ruled.expert(task), pool.expert(task))

    def test_ties_about_the_average_by_hand(self) -> None:
        """As if the experts' mean were the base that they were fine-tuned from."""
        pool = pool64()
        mean = adamerge.merge(pool, "weight_average")
        # Formed alike: the last digit decides at the threshold.
        vectors = {key: stack - stack.mean(dim=0) for key, stack in pool.vectors.items()}
        expected = Ties()(replace(pool, base=mean, vectors=vectors)).static()
        close(adamerge.merge(pool, "ties", origin="average"), expected)

    def test_one_expert_is_its_own_average(self) -> None:
        with pytest.raises(PoolError, match="the average of one expert"):
            adamerge.merge(pool64(tasks=("digits",)), "ties", origin="average")
