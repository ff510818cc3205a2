"""The rotations of Procrustes: solved as they should be, and never more than the images tell."""

from __future__ import annotations

import pytest
import torch
from conftest import TASKS
from restating import adapt, arithmetic, close, expert, forward, images64, pool64, seeded
from torch import Tensor

from adamerge.methods import Procrustes
from adamerge.objectives.alignment import Alignment
from adamerge.rules.linear import TaskArithmetic
from adamerge.training import Schedule

RULED = TaskArithmetic()
pytestmark = pytest.mark.usefixtures("double_precision")


def made(ridge: float = 0.1) -> Procrustes:
    method: Procrustes = seeded(lambda: Procrustes(RULED(pool64()), ridge))
    return method


def solved(own: Tensor, target: Tensor, ridge: float = 0.1) -> Tensor:
    method = made(ridge)
    method.rotate(TASKS[0], own.T @ target, float(own.square().sum()))
    return method.rotations[0].detach()


def polar(x: Tensor) -> Tensor:
    """The orthogonal factor of a square matrix, by Newton's iteration."""
    for _ in range(60):
        x = (x + torch.linalg.inv(x).T) / 2
    return x


@pytest.mark.parametrize("steps", [1, 2])
def test_it_is_the_polar_factor_with_the_identity_as_further_images(steps: int) -> None:
    """c |R - 1|^2 is what d more images do whose features, at the root of c, stay as they are."""
    images, pool = images64(count=6), pool64()
    method = made(ridge=0.3)
    rounds = [{task: x[i::steps] for task, x in images.items()} for i in range(steps)]
    adapt(method, Alignment("l2"), rounds, Schedule(steps, batch_size=6))
    for task, rotation in zip(TASKS, method.rotations, strict=True):
        own = forward(arithmetic(pool), images[task])[1].detach()
        target = forward(expert(pool, task), images[task])[1].detach()
        width = own.shape[1]
        stay = (0.3 * own.square().sum() / width).sqrt() * torch.eye(width)
        close(rotation, polar(torch.cat([own, stay]).T @ torch.cat([target, stay])))


def test_it_finds_a_rotation_that_is_there() -> None:
    own = torch.randn(40, pool64().backbone.embed_dim)
    turn = torch.linalg.qr(torch.randn(own.shape[1], own.shape[1])).Q
    torch.testing.assert_close(solved(own, own @ turn, ridge=1e-9), turn, rtol=1e-6, atol=1e-6)


def test_directions_that_no_image_has_stay_where_they_are() -> None:
    width = pool64().backbone.embed_dim
    own, target = torch.zeros(2, 3, width)
    own[:, :2], target[:, :2] = torch.randn(2, 3, 2)
    rotation = solved(own, target)
    close(rotation[2:, 2:], torch.eye(width - 2))
    close(rotation @ rotation.T, torch.eye(width))


def test_it_is_the_identity_at_first_and_where_the_expert_agrees() -> None:
    close(made().rotations[0], torch.eye(pool64().backbone.embed_dim))
    own = torch.randn(5, pool64().backbone.embed_dim)
    close(solved(own, own), torch.eye(own.shape[1]))


def test_a_ridge_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="ridge should be above 0"):
        made(0.0)
