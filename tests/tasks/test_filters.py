"""The filters on planes whose results are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adamerge.tasks.filters import canny_edges, distance, equalize, gaussian_blur, weighted_shifts


def point(size: int = 21) -> np.ndarray:
    plane = np.zeros((size, size), np.float32)
    plane[size // 2, size // 2] = 1
    return plane


def step(height: float) -> np.ndarray:
    plane = np.zeros((12, 12), np.float32)
    plane[:, 6:] = height
    return plane


def test_shifts_take_the_value_at_the_offset_and_go_on_at_the_border() -> None:
    plane = np.arange(12.0).reshape(3, 4)
    shifted = weighted_shifts(plane, np.array([[1, -2]]), np.array([3.0]))
    assert shifted.tolist() == [[12, 12, 12, 15], [24, 24, 24, 27], [24, 24, 24, 27]]


def test_gaussian_blur_of_a_point_is_the_gaussian() -> None:
    blurred = gaussian_blur(point(), 1.5)
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert blurred[10, 13] / blurred[10, 10] == pytest.approx(np.exp(-(3**2) / (2 * 1.5**2)), rel=1e-4)
    assert blurred[13, 13] == pytest.approx(blurred[10, 13] ** 2 / blurred[10, 10], rel=1e-4)
    assert gaussian_blur(np.full((5, 7), 0.3), 2) == pytest.approx(0.3)


def test_distance_is_euclidean_up_to_its_limit() -> None:
    y, x = np.mgrid[:21, :21] - 10
    assert distance(point() > 0, most=5) == pytest.approx(np.minimum(np.hypot(x, y), 5))
    two = np.zeros((1, 9), bool)
    two[0, [1, 6]] = True
    assert distance(two, most=20).tolist() == [[1, 0, 1, 2, 2, 1, 0, 1, 2]]
    assert (distance(np.zeros((4, 4), bool), most=5) == 5).all()


def test_a_step_is_an_edge_of_one_pixels_width_where_it_is_high_enough() -> None:
    # A step of height h has Sobel gradients of 4 h on both of its sides.
    found = canny_edges(step(100), 50, 150)
    assert found.sum() == 12
    assert found[:, 5].all()
    assert not canny_edges(step(37), 50, 150).any()
    assert canny_edges(step(38), 50, 150).sum() == 12


def test_a_weak_edge_counts_where_it_goes_on_from_a_strong_one() -> None:
    plane = step(34)
    assert not canny_edges(plane, 50, 150).any()
    plane[:6, 6:] = 40
    assert canny_edges(plane, 50, 150)[:, 5:7].any(axis=1).all()
    assert not canny_edges(plane, 140, 150)[8:].any()


def test_equalised_values_are_the_share_of_darker_ones() -> None:
    assert equalize(np.array([[10.0, 10, 10, 20, 20, 40]])).tolist() == [[0, 0, 0, 170, 170, 255]]
    assert equalize(np.array([[7.0, 7]])).tolist() == [[7, 7]]
