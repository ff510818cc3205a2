"""The corruptions against their definitions, worked out here by other means."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from adamerge.picture_fit import Fit
from adamerge.tasks.corruptions import CORRUPTIONS, Corruption, corrupt
from adamerge.tasks.images import ImageSet

SMALL, LARGE = 48, 160


def photo(size: int, seed: int = 0) -> np.ndarray:
    """A picture with surfaces and edges: coloured discs on a slope of brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    picture = np.stack([200 * x, 120 + 60 * y, 220 - 180 * x * y], axis=-1)
    for _ in range(12):
        (cx, cy), radius = rng.random(2), rng.uniform(0.05, 0.2)
        picture[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return picture.astype(np.uint8)


def grey(size: int, value: int = 128) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def done(pixels: np.ndarray, name: str, severity: int = 2, seed: int = 0) -> np.ndarray:
    return corrupt(pixels, name, severity, np.random.default_rng(seed)).astype(float)


@pytest.mark.parametrize("size", [32, SMALL, LARGE])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_picture_is_another_one_of_the_same_form(name: str, size: int) -> None:
    pixels = photo(size)
    before = pixels.copy()
    pixels.flags.writeable = False
    result = corrupt(pixels, name, 2, np.random.default_rng(1))
    assert result.dtype == np.uint8
    assert result.shape == pixels.shape
    assert (result != before).any()
    assert (pixels == before).all()
    assert (corrupt(pixels, name, 2, np.random.default_rng(1)) == result).all()


@pytest.mark.parametrize(("size", "deviation"), [(SMALL, 0.06), (LARGE, 0.12)])
def test_gaussian_noise_has_its_standard_deviation(size: int, deviation: float) -> None:
    noise = np.concatenate([done(grey(size), "gaussian_noise", seed=s).ravel() for s in range(20)]) - 128
    # At mid grey nothing is clipped (four deviations); six standard errors on either side.
    assert abs(noise.mean()) < 6 * 255 * deviation / noise.size**0.5
    assert noise.std() == pytest.approx(255 * deviation, rel=6 / (2 * noise.size) ** 0.5)
    assert np.mean(np.abs(noise) < 255 * deviation) == pytest.approx(0.683, abs=0.015)


@pytest.mark.parametrize(("size", "share"), [(SMALL, 0.02), (LARGE, 0.06)])
def test_impulse_noise_hits_its_share_of_the_values_half_with_white(size: int, share: float) -> None:
    result = np.stack([done(grey(size), "impulse_noise", seed=s) for s in range(20)])
    assert set(np.unique(result)) == {0, 128, 255}
    hit = result != 128
    assert hit.mean() == pytest.approx(share, abs=6 * (share / hit.size) ** 0.5)
    assert (result[hit] == 255).mean() == pytest.approx(0.5, abs=3 / hit.sum() ** 0.5)
    # Single values are hit, not whole pixels.
    assert hit.any(axis=-1).mean() == pytest.approx(1 - (1 - share) ** 3, rel=0.1)


@pytest.mark.parametrize(("size", "kept"), [(SMALL, 0.5), (LARGE, 0.3)])
def test_contrast_draws_the_values_to_their_channels_mean(size: int, kept: float) -> None:
    pixels = grey(size)
    pixels[: size // 2, :, 0], pixels[size // 2 :, :, 0] = 200, 100
    result = done(pixels, "contrast")
    assert (result[: size // 2, :, 0] == 150 + 50 * kept).all()
    assert (result[size // 2 :, :, 0] == 150 - 50 * kept).all()
    assert (result[..., 1:] == 128).all()


def test_pixelate_leaves_blocks_of_their_means() -> None:
    pixels = photo(LARGE)
    blocks = pixels.reshape(80, 2, 80, 2, 3).astype(float).mean(axis=(1, 3))
    result = done(pixels, "pixelate").reshape(80, 2, 80, 2, 3)
    assert (result == result[:, :1, :, :1]).all()
    assert np.abs(result[:, 0, :, 0] - blocks).max() <= 1
    # 0.9 of 48 pixels are 43.
    small = Image.fromarray(photo(SMALL)).resize((43, 43), Image.Resampling.BOX)
    expected = np.asarray(small.resize((SMALL, SMALL), Image.Resampling.BOX))
    assert (done(photo(SMALL), "pixelate") == expected).all()


@pytest.mark.parametrize(("size", "quality"), [(SMALL, 65), (LARGE, 18)])
def test_jpeg_is_pillows_way_there_and_back(size: int, quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(size)).save(file, "JPEG", quality=quality)
    assert (done(photo(size), "jpeg") == np.asarray(Image.open(file))).all()


@pytest.mark.parametrize(("size", "radius", "sigma"), [(SMALL, 6, 1.5), (LARGE, 15, 5)])
def test_motion_blur_draws_a_point_to_half_a_gaussian_along_a_line(
    size: int, radius: int, sigma: float
) -> None:
    weights = [np.exp(-((i / sigma) ** 2) / 2) for i in range(2 * radius + 1)]
    middle = size // 2
    for seed in range(5):
        angle = np.radians(np.random.default_rng(seed).uniform(-45, 45))
        expected = np.zeros((size, size))
        for i, weight in enumerate(weights):
            # Half a pixel goes towards zero displacement; the angles drawn here meet no such tie.
            row, column = middle - round(i * np.sin(angle)), middle - round(i * np.cos(angle))
            expected[row, column] += 255 * weight / sum(weights)
        point = np.zeros((size, size, 3), np.uint8)
        point[middle, middle] = 255
        result = done(point, "motion_blur", seed=seed)
        assert np.abs(result - expected[..., None]).max() <= 0.51
    assert (done(grey(size, 77), "motion_blur") == 77).all()


def test_motion_blur_has_an_angle_of_its_own_for_each_picture() -> None:
    corruption, pixels = Corruption("motion_blur", 5), photo(LARGE)
    assert len({corruption(pixels, index).tobytes() for index in range(8)}) == 8


@pytest.mark.parametrize("severity", [1, 2, 3])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_spatter_of_water_lights_drops_in_pale_turquoise(size: int, severity: int) -> None:
    added = done(grey(size, 0), "spatter", severity)
    wet = added.any(axis=-1)
    assert 0.001 < wet.mean() < 0.4
    # The brightest drop has the full strength; all drops have the colour (175, 238, 238).
    strength = 0.6 if size == LARGE and severity < 3 else 0.5
    assert added.reshape(-1, 3).max(axis=0) == pytest.approx(strength * np.array([175, 238, 238]), abs=0.5)
    assert np.abs(added[..., 0] * 238 / 175 - added[..., 1]).max() <= 1.2
    assert (added[..., 1] == added[..., 2]).all()
    assert (done(grey(size, 99), "spatter", severity)[~wet] == 99).all()


@pytest.mark.parametrize("severity", [4, 5])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_spatter_of_mud_covers_with_brown(size: int, severity: int) -> None:
    on_black, on_white = (done(grey(size, value), "spatter", severity) for value in (0, 255))
    seen_through = (on_white - on_black)[..., 0] / 255
    covered = seen_through < 1
    assert 0.005 < covered.mean() < 0.4
    # The rim lets a fifth of the picture through at most, and is cut off beyond.
    assert seen_through[covered].max() <= 0.21
    brown = (1 - seen_through)[..., None] * [63, 42, 20]
    assert np.abs(on_black - brown).max() <= 1


def test_a_spatter_that_draws_no_drop_leaves_the_picture() -> None:
    class Dry:
        def normal(self, mean: float, deviation: float, shape: tuple[int, int]) -> np.ndarray:
            return np.full(shape, mean)

    pixels = photo(32)
    assert (corrupt(pixels, "spatter", 1, Dry()) == pixels).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if n != "spatter"])
def test_a_higher_severity_changes_more(name: str, size: int) -> None:
    # Not for spatter: mud covers less than the water of a lower severity lights.
    pictures = [photo(size, seed) for seed in range(4)]
    errors = [
        np.mean([((done(p, name, severity, seed) - p) ** 2).mean() for seed, p in enumerate(pictures)])
        for severity in range(1, 6)
    ]
    # CIFAR-C's motion blurs 3 and 4 have one standard deviation, and lines that end where the weight is nothing.
    assert all(
        low < high or high == pytest.approx(low) for low, high in zip(errors, errors[1:], strict=False)
    )
    assert errors[4] > 1.5 * errors[0]


def test_pictures_below_128_pixels_have_the_small_strengths() -> None:
    step = grey(128, 100)
    step[:, 64:] = 200
    assert done(step, "contrast")[0, 0, 0] == 150 - 50 * 0.3
    assert done(step[:127], "contrast")[0, 0, 0] == 150 - 50 * 0.5


@pytest.mark.parametrize(
    ("name", "severity", "words"), [("fog", 2, "no corruption 'fog'"), ("jpeg", 6, "is 6")]
)
def test_an_unknown_name_or_severity_is_refused(name: str, severity: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        corrupt(grey(32), name, severity, np.random.default_rng(0))
    with pytest.raises(ValueError, match=words):
        Corruption(name, severity)


def test_an_image_set_corrupts_each_picture_by_its_number_alone() -> None:
    pixels = np.stack([photo(32, seed) for seed in range(6)])
    before = pixels.copy()
    corruption = Corruption("gaussian_noise", 3)
    at_once = ImageSet(pixels, 32, corruption)[:]
    one_by_one = ImageSet(pixels, 32, corruption)
    for index in (5, 0, 3, 1, 4, 2):
        expected = torch.from_numpy(corruption(before[index], index)).permute(2, 0, 1)
        assert torch.equal(one_by_one[torch.tensor([index])][0], expected)
    assert torch.equal(one_by_one[:], at_once)
    assert (pixels == before).all()
    # Equal pictures get noises of their own, and each corruption has draws of its own.
    twins = ImageSet(np.stack([pixels[0]] * 2), 32, corruption)[:]
    assert not torch.equal(twins[0], twins[1])


def test_an_image_set_corrupts_at_the_models_resolution() -> None:
    picture = Image.fromarray(photo(90))
    plain = ImageSet([picture], 32)[:]
    corrupted = ImageSet([picture], 32, Corruption("jpeg"))[:]
    expected = Corruption("jpeg")(plain[0].permute(1, 2, 0).numpy(), 0)
    assert (corrupted[0].permute(1, 2, 0).numpy() == expected).all()


def test_the_digest_tells_a_corruption() -> None:
    pixels = np.stack([photo(32, seed) for seed in range(3)])
    kinds = [None, *(Corruption(name) for name in CORRUPTIONS), Corruption("jpeg", 3)]
    assert len({ImageSet(pixels, 32, kind).digest() for kind in kinds}) == len(kinds)
    again = ImageSet(pixels, 32, Corruption("jpeg", 3)).digest()
    assert again == ImageSet(pixels, 32, kinds[-1]).digest()


def test_the_papers_strengths_are_those_of_small_pictures_at_any_size() -> None:
    """Pixelated by way of 28 and 32 px, whatever the size: hardly anything is left of a large picture."""
    rng = np.random.default_rng
    for name in ("gaussian_noise", "contrast", "jpeg"):
        strong, papers = (corrupt(photo(LARGE), name, 2, rng(0), kind) for kind in ("imagenet", "cifar"))  # type: ignore[arg-type]
        assert papers.shape == strong.shape == (LARGE, LARGE, 3)
        assert (
            np.abs(papers - photo(LARGE).astype(float)).mean()
            < np.abs(strong - photo(LARGE).astype(float)).mean()
        )
    noise = corrupt(grey(LARGE), "gaussian_noise", 2, rng(0), "cifar").astype(float) - 128
    assert noise.std() == pytest.approx(255 * 0.06, rel=0.02)
    tall = photo(LARGE)[:, :100]
    box = Image.Resampling.BOX
    expected = Image.fromarray(tall).resize((28, 28), box).resize((32, 32), box)
    assert (corrupt(tall, "pixelate", 2, rng(0), "cifar") == np.asarray(expected)).all()
    assert corrupt(tall, "pixelate", 2, rng(0), "imagenet").shape == tall.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_at_cifar_s_own_size_the_papers_and_the_sizes_strengths_are_one(name: str) -> None:
    pixels = photo(32)
    assert (Corruption(name)(pixels, 5) == Corruption(name, strengths="cifar")(pixels, 5)).all()
    assert str(Corruption(name, strengths="cifar")) == f"{name} 2 (cifar)"


def test_named_strengths_are_applied_before_a_picture_is_resized() -> None:
    from adamerge.runs.images import image_set

    pictures = [Image.fromarray(photo(LARGE, seed)) for seed in range(2)]
    for kind in ("cifar", "imagenet"):
        corruption = Corruption("gaussian_noise", 2, kind)  # type: ignore[arg-type]
        expected = ImageSet([corruption(photo(LARGE, i), i) for i in range(2)], 48)[slice(None)]
        assert torch.equal(image_set(pictures, Fit.of(48), corruption)[slice(None)], expected)
    auto = Corruption("gaussian_noise")
    expected = ImageSet(pictures, 48, auto)[slice(None)]
    assert torch.equal(image_set(pictures, Fit.of(48), auto)[slice(None)], expected)


def test_other_strengths_are_refused() -> None:
    with pytest.raises(ValueError, match="strengths is 'large'"):
        Corruption("jpeg", 2, "large")  # type: ignore[arg-type]
