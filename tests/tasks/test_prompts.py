from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

import adamerge.tasks.prompts as prompts_module
from adamerge.errors import ConfigError
from adamerge.tasks.prompts import known_tasks, prompts

# Classes and templates of each task.
COUNTS = {
    "sun397": (397, 2),
    "stanford_cars": (196, 8),
    "resisc45": (45, 18),
    "eurosat": (10, 3),
    "svhn": (10, 1),
    "gtsrb": (43, 3),
    "mnist": (10, 1),
    "dtd": (47, 8),
    "stl10": (10, 2),
    "oxford_iiit_pet": (37, 1),
    "flowers102": (102, 1),
    "cifar100": (100, 18),
    "pcam": (2, 1),
    "fer2013": (7, 6),
    "cifar10": (10, 18),
    "food101": (101, 1),
    "fashion_mnist": (10, 2),
    "rendered_sst2": (2, 1),
    "emnist": (10, 1),
    "emnist_letters": (26, 1),
    "kmnist": (10, 1),
}


def test_the_tasks_are_the_twenty_and_fusion_benchs_letters() -> None:
    assert known_tasks() == tuple(COUNTS)
    assert sum(classes for classes, _ in list(COUNTS.values())[:8]) == 758


@pytest.mark.parametrize("task", COUNTS)
def test_counts_are_those_of_the_reference(task: str) -> None:
    known = prompts(task)
    assert (len(known.classes), len(known.templates)) == COUNTS[task]
    assert len(set(known.classes)) == len(set(known.names)) == len(known.names) == len(known.classes)
    assert all(template.count("{}") == 1 for template in known.templates)


def test_words_of_the_published_heads() -> None:
    assert prompts("eurosat").classes[2] == "brushland or shrubland"
    assert prompts("eurosat").names[2] == "HerbaceousVegetation"
    assert prompts("svhn").classes == prompts("mnist").classes == tuple("0123456789")
    assert prompts("gtsrb").classes[14] == "stop"
    assert prompts("dtd").classes[0] == "banded"


def test_an_unknown_task_is_named_with_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"task 'resisc'.*did you mean 'resisc45'"):
        prompts("resisc")


def digest(words: object) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


@pytest.mark.parametrize("task", COUNTS)
def test_every_list_of_words_is_the_papers(task: str) -> None:
    """By digest, order included: a name that is swapped or mistyped makes another head."""
    lists = yaml.safe_load((Path(prompts_module.__file__).with_suffix(".yaml")).read_text(encoding="utf-8"))
    known = yaml.safe_load((Path(__file__).parent / "prompts_sha256.yaml").read_text())
    assert {key: digest(words) for key, words in lists[task].items()} == known[task]
    assert set(known) == set(lists)
