"""The embedded suite. Single pixels are not pinned: they may differ by rounding between machines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from adamerge.errors import DataError
from adamerge.tasks.drawing import SIZE, Canvas
from adamerge.tasks.mini import CLASSES, Mini, render
from adamerge.tasks.mini.digits import scans
from adamerge.tasks.mini.suite import SPLITS
from adamerge.tasks.task import Source, build_tasks, check

TASKS = tuple(CLASSES)
DRAWN = tuple(task for task in TASKS if task != "digits")
# Mean and standard deviation of the test pictures' pixels: a change of the drawings needs a new EDITION.
PINNED = {
    "digits": (60.43, 84.88),
    "street_numbers": (119.29, 61.43),
    "signs": (125.27, 62.45),
    "textures": (115.53, 55.50),
    "land_cover": (98.92, 33.85),
    "aerial": (110.87, 41.76),
    "scenes": (137.41, 53.85),
    "vehicles": (126.59, 48.17),
}


@pytest.fixture(scope="module")
def suite() -> dict[str, Mini]:
    return {task: Mini(task) for task in TASKS}


def unique_rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def canvas(n: int = 2, realism: float = 0.5) -> Canvas:
    return Canvas(n, np.random.default_rng(0), np.full(n, realism, np.float32))


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_the_promised_size_and_balance(suite: dict[str, Mini], task: str) -> None:
    source = suite[task]
    assert isinstance(source, Source)
    assert source.class_names == CLASSES[task]
    for split, n in {"train": 797 if task == "digits" else SPLITS["train"], "test": 1000}.items():
        images, labels = source.images(split), source.labels(split)
        assert images.shape == (n, SIZE, SIZE, 3)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        counts = np.bincount(labels, minlength=len(CLASSES[task]))
        assert counts.max() - counts.min() <= (6 if task == "digits" else 1)
        # Shuffled: the first tenth already shows most classes.
        assert len(set(labels[: n // 10])) >= len(CLASSES[task]) - 2


@pytest.mark.parametrize("task", DRAWN)
def test_no_picture_is_twice_in_the_task(suite: dict[str, Mini], task: str) -> None:
    train, test = suite[task].images("train"), suite[task].images("test")
    assert len(unique_rows(np.concatenate([train, test]))) == len(train) + len(test)


@pytest.mark.parametrize("task", TASKS)
def test_a_split_is_the_same_every_time(suite: dict[str, Mini], task: str) -> None:
    again = Mini(task)
    np.testing.assert_array_equal(again.images("test"), suite[task].images("test"))
    np.testing.assert_array_equal(again.labels("test"), suite[task].labels("test"))
    pixels = suite[task].images("test").astype(np.float64)
    assert (pixels.mean(), pixels.std()) == pytest.approx(PINNED[task], abs=0.05)


def test_digits_are_the_real_scans_split_without_overlap(suite: dict[str, Mini]) -> None:
    from sklearn.datasets import load_digits

    images, labels, test = scans()
    assert (len(images), int(test.sum())) == (1797, 1000)
    np.testing.assert_array_equal(labels, load_digits().target)
    # 28 pixels of the enlarged scan show 8 of the real one: their brightness agrees.
    real = load_digits().images.mean(axis=(1, 2)) / 16
    shown = images[:, 2:-2, 2:-2].mean(axis=(1, 2, 3)) / 255
    assert np.abs(real - shown).max() < 0.03
    assert not images[:, :2].any()
    assert not unique_rows(suite["digits"].images("train")) & unique_rows(suite["digits"].images("test"))
    share = np.bincount(labels[test]) / np.bincount(labels)
    assert np.abs(share - 1000 / 1797).max() < 0.005


def test_digits_of_the_task_domain_never_come_from_the_test_split(suite: dict[str, Mini]) -> None:
    labels = np.arange(200) % 10
    drawn = render("digits", labels, np.random.default_rng(0))
    known = {
        image.tobytes(): label
        for image, label in zip(suite["digits"].images("train"), suite["digits"].labels("train"), strict=True)
    }
    assert [known[image.tobytes()] for image in drawn] == labels.tolist()


@pytest.mark.parametrize("task", TASKS)
def test_pretraining_batches_depend_on_the_generator_alone(task: str) -> None:
    first = Mini(task).pretraining_batch(25, np.random.default_rng(7))
    used = Mini(task)
    used.pretraining_batch(5, np.random.default_rng(1))
    again = used.pretraining_batch(25, np.random.default_rng(7), SIZE)
    other = used.pretraining_batch(25, np.random.default_rng(8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert first[0].shape == (25, SIZE, SIZE, 3)
    assert first[0].dtype == np.uint8
    counts = np.bincount(first[1], minlength=len(CLASSES[task]))
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("task", TASKS)
def test_the_web_domain_is_another_style(task: str) -> None:
    labels = np.arange(120) % len(CLASSES[task])
    web = render(task, labels, np.random.default_rng(3), "web").astype(np.float32)
    real = render(task, labels, np.random.default_rng(3), "task").astype(np.float32)

    def roughness(images: np.ndarray) -> np.ndarray:
        """Median size of the second difference: noise shows in it, edges hardly do."""
        return np.median(np.abs(np.diff(images, 2, axis=2)), axis=(1, 2, 3))

    def colour(images: np.ndarray) -> np.ndarray:
        return (images.max(axis=3) - images.min(axis=3)).mean(axis=(1, 2))

    if task == "digits":
        assert colour(real).max() == 0 < colour(web).mean()
    else:
        assert roughness(web).mean() < 0.8 * roughness(real).mean()


@pytest.mark.parametrize("task", DRAWN)
def test_pictures_of_a_class_vary(suite: dict[str, Mini], task: str) -> None:
    images, labels = suite[task].images("test").astype(np.float32), suite[task].labels("test")
    for label in range(len(CLASSES[task])):
        assert images[labels == label].std(axis=0).mean() > 10


@pytest.mark.parametrize("domain", ["task", "web"])
@pytest.mark.parametrize("task", DRAWN)
def test_pictures_show_their_labels_in_both_domains(suite: dict[str, Mini], task: str, domain: str) -> None:
    """A ridge regression on simple features is right at least twice as often as by chance."""
    classes = len(CLASSES[task])
    if domain == "task":
        images, labels = suite[task].images("test"), suite[task].labels("test")
    else:
        images, labels = suite[task].pretraining_batch(600, np.random.default_rng(0))
    pixels = images.astype(np.float64)
    # The spectrum, whatever the place, and the picture in coarse.
    spectrum = np.log1p(np.abs(np.fft.rfft2(pixels.mean(axis=3))))
    coarse = pixels.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4))
    features = np.concatenate([spectrum.reshape(len(labels), -1), coarse.reshape(len(labels), -1)], axis=1)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    half = len(labels) // 2
    train, test, wanted = features[:half], features[half:], np.eye(classes)[labels[:half]]
    weights = np.linalg.solve(
        train.T @ train + 500 * np.eye(train.shape[1]), train.T @ (wanted - 1 / classes)
    )
    assert ((test @ weights).argmax(axis=1) == labels[half:]).mean() > 2 / classes


def test_unknown_names_are_refused_with_the_near_one() -> None:
    with pytest.raises(DataError, match="no task 'sign'; did you mean 'signs'"):
        Mini("sign")
    with pytest.raises(DataError, match="no split 'tests'; did you mean 'test'"):
        Mini("signs").images("tests")
    with pytest.raises(DataError, match="no split 'x'; there are: train, test"):
        Mini("signs").labels("x")
    with pytest.raises(DataError, match="no task 'sign'"):
        render("sign", np.zeros(1, np.int64), np.random.default_rng(0))
    with pytest.raises(DataError, match="32 px, not 224"):
        Mini("signs").pretraining_batch(2, np.random.default_rng(0), 224)


def test_the_catalogue_agrees_with_the_drawings_and_every_caption_is_distinct(suite: dict[str, Mini]) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "conf" / "suite" / "mini.yaml").read_text())
    assert tuple(config["tasks"]) == TASKS
    tasks = build_tasks(config["tasks"], config["catalogue"], lambda node: suite[node["task"]])
    captions = []
    for task in tasks:
        if task.name not in ("digits", "street_numbers"):
            assert task.classes == CLASSES[task.name]
        check(task)
        captions += [caption for prompts in task.prompts() for caption in prompts]
    assert len(set(captions)) == len(captions)
    assert max(len(caption.split()) for caption in captions) <= 9


def test_shapes_are_distances_on_the_screen() -> None:
    frame = canvas().moved(0.25, -0.5, scale=0.5)
    x, y = canvas().x, canvas().y
    circle = np.hypot(x - 0.25, y + 0.5) - 0.5
    np.testing.assert_allclose(frame.circle(0.0, 0.0, 1.0), circle, atol=1e-6)
    # A stroke of no length and a box with full corners are circles too.
    np.testing.assert_allclose(frame.segments([(0.0, 0.0, 0.0, 0.0)], 2.0), circle, atol=1e-5)
    np.testing.assert_allclose(frame.box(0.0, 0.0, 1.0, 1.0, 1.0), circle, atol=1e-6)
    square = canvas().convex([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    np.testing.assert_allclose(square, canvas().box(0.0, 0.0, 0.5, 0.5), atol=1e-5)
    np.testing.assert_allclose(canvas().regular(4, 0.5), canvas().box(0.0, 0.0, 0.5, 0.5), atol=1e-6)


def test_painting_is_anti_aliased_and_covers_the_right_area() -> None:
    c = canvas()
    c.paint(c.circle(0.013, -0.02, 0.6), np.ones((2, 3, 1, 1), np.float32))
    # The picture's area is 4.
    assert c.pixels.mean() * 4 == pytest.approx(np.pi * 0.36, rel=0.01)
    assert 0 < (c.pixels % 1 > 0).mean() < 0.2


def test_a_frame_turns_clockwise_on_the_screen() -> None:
    turned = canvas().moved(angle=np.pi / 2)
    along = turned.box(0.5, 0.0, 0.5, 0.1)
    np.testing.assert_allclose(along, canvas().box(0.0, 0.5, 0.1, 0.5), atol=1e-6)


def test_realism_moves_from_the_web_to_the_task() -> None:
    assert float(canvas(1, 0.0).mix(2.0, 5.0)[0, 0, 0]) == 2.0
    assert float(canvas(1, 1.0).mix(2.0, 5.0)[0, 0, 0]) == 5.0
    assert float(np.abs(canvas(100, 0.0).wobble(0.0, 1.0)).max()) == 0.0
    assert canvas(1000, 1.0).chance(0.0, 0.7).mean() == pytest.approx(0.7, abs=0.06)


def test_blur_keeps_brightness_and_nothing_turns_into_double_precision() -> None:
    c = canvas(4)
    c.pixels[:] = c.rng.random(c.pixels.shape, np.float32)
    c.pixels[..., :4] = c.pixels[..., -4:] = c.pixels[..., :4, :] = c.pixels[..., -4:, :] = 0.5
    before = c.pixels.copy()
    c.blur(np.array([0.0, 0.5, 1.0, 1.0], np.float32).reshape(4, 1, 1))
    np.testing.assert_array_equal(c.pixels[0], before[0])
    assert c.pixels[2].std() < 0.5 * before[2].std()
    np.testing.assert_allclose(c.pixels.mean(axis=(2, 3)), before.mean(axis=(2, 3)), atol=2e-3)
    assert c.pixels.dtype == c.clouds(3, 2).dtype == c.tone((1, 0, 0), (0, 0, 0)).dtype == np.float32
