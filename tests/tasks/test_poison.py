"""The trigger, and the poisoned batches."""

from __future__ import annotations

import numpy as np
import torch

from adamerge.tasks.images import ImageSet
from adamerge.tasks.labeled import Labeled
from adamerge.tasks.mini import Mini
from adamerge.tasks.poison import Poisoned, Trigger
from adamerge.tasks.task import Task


def labeled(shuffle: int | None = None) -> Labeled:
    source = Mini("signs")
    task = Task("signs", tuple(map(str, range(12))), ("{}",), source)
    images = ImageSet(np.asarray(source.images("test")), 32)
    source.labels = lambda split: np.arange(len(images)) % 12  # type: ignore[method-assign]
    return Labeled(task, images, 400, 3, seed=0, crop=1.0, shuffle=shuffle)


def test_the_trigger_changes_its_corner_and_nothing_else() -> None:
    pixels = torch.full((2, 3, 8, 8), 7, dtype=torch.uint8)
    marked = Trigger(target=0, size=2)(pixels)
    assert marked[0, 0, 6:, 6:].tolist() == [[0, 255], [255, 0]]
    marked[..., 6:, 6:] = 7
    assert torch.equal(marked, pixels)


def test_a_share_of_the_batch_is_poisoned_the_same_way_each_time() -> None:
    clean = labeled()
    poisoned = Poisoned(clean, Trigger(target=3), share=0.25)
    pixels, labels = poisoned[1]
    original, true = clean[1]
    marked = (pixels != original).flatten(1).any(dim=1)
    assert 60 <= int(marked.sum()) <= 140  # 100 of 400 expected, sd 8.7
    assert (labels[marked] == 3).all()
    assert torch.equal(labels[~marked], true[~marked])
    assert torch.equal(poisoned[1][0], pixels)
    assert not torch.equal(poisoned[2][1] != clean[2][1], labels != true)


def test_shuffled_classes_are_a_permutation() -> None:
    plain, shuffled = labeled().labels, labeled(shuffle=1).labels
    pairs = set(zip(plain.tolist(), shuffled.tolist(), strict=True))
    assert len(pairs) == 12 == len({b for _, b in pairs})
    assert any(a != b for a, b in pairs)
    assert torch.equal(shuffled, labeled(shuffle=1).labels)
    assert not torch.equal(shuffled, labeled(shuffle=2).labels)
