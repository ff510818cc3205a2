"""Lines between models and their ends; negation."""

from __future__ import annotations

import pytest
import torch
from restating import pool64
from small_pools import added, close, taus

import adamerge
from adamerge.errors import ConfigError, PoolError
from adamerge.rules.interpolation import Interpolation, WiseFT


class TestWiseFT:
    def test_it_is_a_point_on_the_line_from_the_base_to_the_expert(self) -> None:
        alone = pool64(tasks=("digits",))
        found = adamerge.merge(alone, "wise_ft", alpha=0.25)
        expert = alone.expert("digits")
        close(found, {key: 0.75 * value + 0.25 * expert[key] for key, value in alone.base.items()})

    def test_of_several_experts_it_is_that_of_their_mean(self) -> None:
        pool = pool64()
        mean = adamerge.merge(pool, "weight_average")
        found = adamerge.merge(pool, "wise_ft")
        close(found, {key: 0.5 * value + 0.5 * mean[key] for key, value in pool.base.items()})

    def test_its_ends_are_the_base_and_the_average(self) -> None:
        pool = pool64()
        close(adamerge.merge(pool, "wise_ft", alpha=0.0), pool.base)
        close(adamerge.merge(pool, "wise_ft", alpha=1.0), adamerge.merge(pool, "weight_average"))
        with pytest.raises(ValueError, match="alpha"):
            WiseFT(1.5)


class TestInterpolation:
    def test_two_models_on_their_line(self) -> None:
        pool = pool64(tasks=("digits", "signs"))
        found = adamerge.merge(pool, "interpolation", shares={"signs": 0.3, "digits": 0.7})
        first, second = pool.expert("digits"), pool.expert("signs")
        close(found, {key: 0.7 * value + 0.3 * second[key] for key, value in first.items()})

    def test_what_weights_leave_is_the_base_s(self) -> None:
        pool = pool64()
        weights = {"signs": 0.1, "digits": 0.4, "scenes": 0.0}
        found = adamerge.merge(pool, "interpolation", shares=weights)
        experts = {task: pool.expert(task) for task in pool.names}
        expected = {
            key: 0.5 * value + sum(w * experts[task][key] for task, w in weights.items())
            for key, value in pool.base.items()
        }
        close(found, expected)

    def test_without_weights_it_is_the_average(self) -> None:
        pool = pool64()
        close(adamerge.merge(pool, "interpolation"), adamerge.merge(pool, "weight_average"))

    def test_weights_are_shares_of_the_experts_that_there_are(self) -> None:
        pool = pool64()
        with pytest.raises(PoolError, match="shares: they are of digits, and the experts are"):
            adamerge.merge(pool, "interpolation", shares={"digits": 1.0})
        for weights in ({"digits": -0.1}, {"digits": 0.7, "signs": 0.4}):
            with pytest.raises(ValueError, match="sum of at most 1"):
                Interpolation(weights)
        with pytest.raises(ConfigError, match="shares"):
            adamerge.merge(pool, "interpolation", shares={"digits": "much"})


class TestNegation:
    def test_all_of_the_pool_is_subtracted(self) -> None:
        pool = pool64()
        change = {key: -0.3 * sum(vectors[1:], vectors[0]) for key, vectors in taus(pool).items()}
        close(adamerge.merge(pool, "negation"), added(pool, change))

    def test_some_are_forgotten_and_the_others_added(self) -> None:
        pool = pool64()
        found = adamerge.merge(pool, "negation", forget=["digits"], scale=0.5)
        change = {key: 0.5 * (signs - digits + scenes) for key, (signs, digits, scenes) in taus(pool).items()}
        close(found, added(pool, change))

    def test_it_undoes_task_arithmetic(self) -> None:
        pool = pool64(tasks=("digits",))
        away = adamerge.merge(pool, "negation", scale=0.4)
        there = adamerge.merge(pool, "task_arithmetic", scale=0.4)
        close({key: (value + away[key]) / 2 for key, value in there.items()}, pool.base)

    def test_only_experts_can_be_forgotten(self) -> None:
        with pytest.raises(PoolError, match="forget: there is no expert 'digit'; did you mean 'digits'"):
            adamerge.merge(pool64(), "negation", forget=["digit"])
        assert torch.equal(
            *(
                adamerge.merge(pool64(), "negation", forget=n)["visual.proj"]
                for n in (None, ["signs", "digits", "scenes"])
            )
        )
