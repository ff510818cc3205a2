"""Collapse by hand: a class that takes over a task, an expert that takes all gates."""

from __future__ import annotations

import pytest
import torch

from adamerge.evaluation.collapse import experts_taking_over, tasks_taken_over


@pytest.mark.parametrize(
    ("own", "expert", "collapsed"),
    [
        ([2, 2, 2, 0], [0, 1, 2, 3], True),  # three quarters against a quarter
        ([2, 2, 2, 0], [2, 2, 1, 3], False),  # against a half: not twice as many
        ([2, 2, 1, 0], [0, 1, 3, 3], False),  # no more than half
        ([1, 1, 1, 1], [1, 1, 0, 0], True),  # all of two even classes
        ([1, 1, 1, 1], [1, 1, 1, 1], False),  # the images are all of one class
    ],
)
def test_a_class_takes_over(own: list[int], expert: list[int], collapsed: bool) -> None:
    found = tasks_taken_over({"t": torch.tensor(own)}, {"t": torch.eye(4)[expert]})
    assert [where.name for where in found] == (["task/t"] if collapsed else [])
    if collapsed:
        assert found[0].share == own.count(own[1]) / 4


def test_the_router_sends_everything_to_one_expert() -> None:
    """Of two experts, more than three quarters of the sizes of the gates; the sign does not matter."""
    assert experts_taking_over(torch.tensor([[0.3, 0.3], [1.0, 0.0]]), "ab") == []
    (found,) = experts_taking_over(torch.tensor([[-0.9, 0.1], [0.8, 0.2]]), "ab")
    assert (found.name, found.share) == ("expert/a", pytest.approx(0.85))
    assert experts_taking_over(torch.eye(4).repeat(5, 1), "abcd") == []  # each task its own
    assert experts_taking_over(torch.ones(3, 1), "a") == []
    assert experts_taking_over(torch.zeros(3, 2), "ab") == []
