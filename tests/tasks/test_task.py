from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adamerge.errors import ConfigError, DataError
from adamerge.tasks.task import Source, Task, build_tasks, check, check_head


class Fixed(Source):
    """Pictures that tell their number by their colour."""

    def __init__(
        self, n: int = 4, labels: list[int] | None = None, names: tuple[str, ...] | None = None
    ) -> None:
        self.pictures = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 9, 7, 3), np.uint8)
        self.given = labels
        self.class_names = names

    def images(self, split: str) -> np.ndarray:
        return self.pictures

    def labels(self, split: str) -> np.ndarray | None:
        return None if self.given is None else np.array(self.given, np.int64)


def build(name: str = "pets", **entry: Any) -> Task:
    source = entry.pop("source", {"names": ("cat", "hot_dog")})
    catalogue = {"pets": {"source": source, **entry}, "cars": {"source": {}}}
    return build_tasks([name], catalogue, lambda node: Fixed(**node))[0]


def test_prompts_fill_every_template_for_every_class() -> None:
    task = Task("pets", ("cat", "{odd}"), ("a {}.", "the {}, a {}."), Fixed())
    assert task.prompts() == [["a cat.", "the cat, a cat."], ["a {odd}.", "the {odd}, a {odd}."]]


def test_prompts_without_class_names_say_what_to_give() -> None:
    with pytest.raises(DataError, match=r"suite\.catalogue\.pets\.classes.*checkpoints\.heads"):
        Task("pets", None, ("a {}.",), Fixed()).prompts()


def test_classes_of_the_data_become_words() -> None:
    assert build().classes == ("cat", "hot dog")
    assert build(source={"names": None}).classes is None


def test_classes_as_a_mapping_follow_the_data_in_any_order() -> None:
    assert build(classes={"hot_dog": "a sausage", "cat": "a small cat"}).classes == (
        "a small cat",
        "a sausage",
    )


def test_words_that_are_no_names_are_paired_by_position(caplog: pytest.LogCaptureFixture) -> None:
    task = build(classes=[0, "warm_dog"])
    assert (task.classes, task.by_position) == (("0", "warm_dog"), True)
    assert "'pets': its class words are not the data's names" in caplog.text
    assert "by position: 0 -> cat, warm_dog -> hot_dog" in caplog.text


def test_words_that_are_the_names_are_brought_into_their_order(caplog: pytest.LogCaptureFixture) -> None:
    task = build(classes=["Hot Dog", "Cat"])
    assert (task.classes, task.by_position) == (("Cat", "Hot Dog"), False)
    assert not caplog.text


def test_the_head_of_a_file_may_have_another_order_of_numbered_classes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = Task("pets", None, ("a {}.",), Fixed(names=("2", "10")))
    check_head(task, 2)
    assert not caplog.text
    check_head(task, 2, from_file=True)
    assert "in their order: 2, 10. A head made with torchvision's ImageFolder" in caplog.text
    with pytest.raises(DataError, match="its head has 3 rows, but there are 2 classes"):
        check_head(task, 3)


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        (
            {"classes": ["a hound", "cat"]},
            DataError,
            r"1 of 2 words equal .* other positions, e\.g\. 'a hound' stands where the data has 'cat'",
        ),
        (
            {"classes": {"cat": "cat", "hotdog": "dog"}},
            DataError,
            "no class 'hotdog'; did you mean 'hot_dog'",
        ),
        ({"classes": {"cat": "cat"}}, DataError, "no words for 1 of 2 classes: hot_dog"),
        ({"classes": {"cat": "cat"}, "source": {"names": None}}, DataError, "the data has none"),
        ({"classes": "cat"}, ConfigError, r"pets\.classes: a list is expected"),
        ({"classes": ["yes", False]}, ConfigError, "use quotes"),
        ({"templates": ["a photo"]}, ConfigError, "'a photo' has no {}"),
        ({"template": ["a {}"]}, ConfigError, "no option 'template'; did you mean 'templates'"),
        ({"source": None}, ConfigError, "pets has no source"),
        ({"name": "pet"}, ConfigError, "no task 'pet'; did you mean 'pets'"),
        ({"name": "zebras"}, ConfigError, "no task 'zebras'; there are: pets, cars"),
    ],
)
def test_mistakes_in_the_catalogue(entry: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(**entry)


def test_the_star_entry_serves_any_task_and_its_own_entry_goes_first() -> None:
    made = []

    def instantiate(node: dict[str, Any]) -> Fixed:
        made.append(node)
        return Fixed(names=("cat",))

    catalogue: dict[str, dict[str, Any]] = {
        "*": {"source": {"folder": "x/{task}", "size": 3}, "classes": None, "templates": ["the {}."]},
        "birds": {"classes": ["wren"]},
    }
    tasks = build_tasks(["fish", "birds"], catalogue, instantiate)
    assert made == [{"folder": "x/fish", "size": 3}, {"folder": "x/birds", "size": 3}]
    assert [(task.name, task.classes, task.templates) for task in tasks] == [
        ("fish", ("cat",), ("the {}.",)),
        ("birds", ("wren",), ("the {}.",)),
    ]


@pytest.mark.parametrize(
    ("classes", "source", "message"),
    [
        (
            ("cat",),
            Fixed(names=("cat", "dog")),
            r"1 class names are given, but the data has 2 classes: cat, dog",
        ),
        (("cat", "dog"), Fixed(3, [0, 1]), "3 pictures, but 2 labels"),
        (
            ("cat", "dog"),
            Fixed(3, [0, 2, 5]),
            r"2 labels are out of range, e.g. 2 of picture 1; expected 0 to 1",
        ),
        (None, Fixed(2, [0, -1]), "-1 of picture 1; expected from 0 on"),
        (None, Fixed(2, [0, 1], ("cat",)), "1 of picture 1; expected 0 to 0"),
    ],
)
def test_check_names_what_does_not_agree(classes: Any, source: Fixed, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(Task("pets", classes, ("a {}.",), source))


def test_check_accepts_what_agrees() -> None:
    check(Task("pets", ("cat", "dog"), ("a {}.",), Fixed(3, [0, 1, 0], ("cat", "dog"))))
    check(Task("pets", None, ("a {}.",), Fixed(3)))
    check(Task("pets", None, ("a {}.",), Fixed(2, [0, 7])))


def test_pretraining_batch_pairs_each_picture_with_its_label() -> None:
    source = Fixed(5, [10, 11, 12, 13, 14])
    images, labels = source.pretraining_batch(64, np.random.default_rng(0), 8)
    assert images.shape == (64, 8, 8, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (images == (labels - 10).astype(np.uint8)[:, None, None, None]).all()
    assert set(labels.tolist()) == {10, 11, 12, 13, 14}


def test_pretraining_batch_depends_on_the_generator_alone() -> None:
    source = Fixed(5, [0, 1, 2, 3, 4])
    source.pictures = np.random.default_rng(7).integers(0, 256, source.pictures.shape, np.uint8)
    first, again, other = (source.pretraining_batch(6, np.random.default_rng(seed), 8) for seed in (1, 1, 2))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


def test_pretraining_batch_needs_labels() -> None:
    with pytest.raises(DataError, match="no labels"):
        Fixed().pretraining_batch(2, np.random.default_rng(0), 8)
