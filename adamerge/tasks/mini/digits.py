"""Handwritten digits: scikit-learn's real scans as the task, drawn strokes on the web."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adamerge.tasks.drawing import SIZE, Array, Canvas, photograph
from adamerge.tasks.mini.glyphs import digit_strokes

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_SCANS = 1000


def paint(labels: NDArray[np.int64], rng: np.random.Generator, realism: Array) -> Canvas:
    """Pen strokes on paper: ink and paper of any colour, thinner and neater than the scans."""
    canvas = Canvas(len(labels), rng, realism)
    paper, ink = canvas.colour(0.75, 1.0, 0.3), canvas.colour(0.0, 0.35, 0.8)
    light = canvas.chance(0.15, 1.0)[:, None]
    canvas.fill(paper + light * (ink - paper))
    frame = canvas.moved(
        canvas.wobble(0.1, 0.1),
        canvas.wobble(0.1, 0.1),
        canvas.wobble(0.1, 0.2),
        canvas.uniform(0.75, 1.0),
        canvas.uniform(0.75, 1.2),
    )
    frame.x = frame.x + frame.y * canvas.wobble(0.15, 0.3)
    width = canvas.uniform(0.12, canvas.mix(0.22, 0.4))
    strokes = digit_strokes(canvas, frame, labels, width, canvas.chance(0.3, 0.6), canvas.mix(0.03, 0.08))
    canvas.paint(strokes, ink + light * (paper - ink))
    photograph(canvas, blur=1.6, noise=0.03, contrast=0.2, light=0.05)
    return canvas


@lru_cache(maxsize=1)
def scans() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """All scans (n, S, S, 3) with their digits (n,) and whether each belongs to the test split (n,).

    The 8x8 scans are enlarged to 28x28 and framed with 2 black pixels. The split is stratified by class.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(np.int64)
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(grey), SIZE, SIZE, 3), np.uint8)
    for index, scan in enumerate(grey):
        large = Image.fromarray(scan).resize((SIZE - 4, SIZE - 4), Image.Resampling.BICUBIC)
        images[index, 2:-2, 2:-2] = np.asarray(large)[..., None]
    return images, labels, _test_share(labels)


def _test_share(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The first scans of each class in a fixed random order, as many as its share of TEST_SCANS."""
    rng = np.random.Generator(np.random.PCG64(1797))
    share = np.bincount(labels) * (TEST_SCANS / len(labels))
    counts = np.floor(share).astype(int)
    # Largest remainders make the sum exact.
    counts[np.argsort(counts - share, kind="stable")[: TEST_SCANS - counts.sum()]] += 1
    test = np.zeros(len(labels), bool)
    for label, count in enumerate(counts):
        test[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return test
