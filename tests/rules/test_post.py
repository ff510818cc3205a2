"""Post-rules as such: behind any rule, one after the other, below a method; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pool
from post_by_hand import Delta, close
from restating import pool64
from rules.test_svc import svc_by_hand

import adamerge
from adamerge.errors import PoolError
from adamerge.methods.adamerging import AdaMerging
from adamerge.models.coefficient_files import read_table
from adamerge.rules.emr import Emr
from adamerge.rules.linear import Pretrained
from adamerge.rules.lines import Lines
from adamerge.rules.post import Learned, followed
from adamerge.rules.svc import Svc
from adamerge.rules.ties import Ties


@pytest.mark.parametrize("post", [Lines(0.4), Svc()])
def test_coefficients_are_learned_on_as_many_vectors_and_start_at_the_merge(post: Any) -> None:
    pool = pool64()
    for rule, names in ((Ties(), pool.names), (Delta(), ("merged",))):
        ruled = followed(rule, [post])(pool)
        assert ruled.names == names
        close(AdaMerging(ruled, start=None, clamp=False).double().merged_state_dict(), ruled.static())


def test_a_chain_is_one_after_the_other() -> None:
    pool = pool64()
    first = followed(Ties(), [Lines(0.4)])
    expected = svc_by_hand(pool, first, 0.3, 1 / 3)
    close(followed(Ties(), [Lines(0.4), Svc()])(pool).static(), expected)


@pytest.mark.parametrize("layout", ["open_clip", "hf"])
def test_learned_coefficients_make_one_delta(layout: Any, tmp_path: Path) -> None:
    """That of the method that learned them, found by name: the table is in another order."""
    pool = pool64()
    ruled = Ties()(pool)
    method = AdaMerging(ruled, clamp=False, layout=layout).double()
    torch.nn.init.normal_(method.merging.values, 0.3, 0.2)
    layers, names = method.merging.layers[::-1], pool.names[::-1]
    values = method.merging.values.detach().flip(0, 1).tolist()
    (tmp_path / "table.json").write_text(
        json.dumps({"layers": list(layers), "tasks": list(names), "values": values})
    )
    table = read_table(tmp_path / "table.json")
    learned = Learned(Ties(), lambda key, names: table.of((key,), names))
    assert learned(pool).names == ("merged",)
    for key, value in method.merged_state_dict().items():
        torch.testing.assert_close(learned(pool).static()[key], value)
    with pytest.raises(PoolError, match="keeps one per task"):
        Learned(Emr(), lambda key, names: table.of((key,), names))


@pytest.mark.parametrize("post", [Lines(), Svc()])
def test_what_makes_no_sense_is_refused(post: Any) -> None:
    pool = pool64()
    with pytest.raises(PoolError, match="keeps one per task"):
        followed(Emr(), [post])
    with pytest.raises(PoolError, match="coefficient 0"):
        adamerge.merge(pool, Pretrained(), post=post)


def test_lines_needs_blocks_and_vectors_that_do_not_sum_to_zero() -> None:
    with pytest.raises(PoolError, match="the encoder has none"):
        adamerge.merge(make_pool(), "ties", post="lines")
    with pytest.raises(PoolError, match="origin=average"):
        adamerge.merge(pool64(), "ties", post="lines", origin="average")
    with pytest.raises(ValueError, match="alpha"):
        Svc(alpha=0.0)
