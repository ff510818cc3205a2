"""What a run's rule learns of unlabeled images: statistics of one pass over them, kept on disk by content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints.cached import cached_file
from adamerge.errors import ConfigError
from adamerge.merging import Pool
from adamerge.models.heads import head_digest
from adamerge.progress import image_progress
from adamerge.runs.images import Data, open_data
from adamerge.runs.protocol import looked_at
from adamerge.runs.rules import rule_images, rule_name, rule_of, rule_sees
from adamerge.runs.run import Run
from adamerge.statistics.collected import Collected, Kind, collect, refuse_missing
from adamerge.statistics.walking import Walking
from adamerge.tasks.images import ImageSet

# What an entry of the cache is called.
_TITLES: dict[Kind, str] = {
    "gram": "gram matrices",
    "fisher": "Fisher information",
    "activation": "activations",
}


class _InFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file, read one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        with safe_open(self._path, framework="pt") as file:
            return tuple(file.keys())

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        with safe_open(self._path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def statistics_of(run: Run, pool: Pool, data: Data | None = None) -> Collected | None:
    """The statistics that the run's rule needs; None where it needs none.

    Args:
        pool: the experts, before any rule.
        data: the test split; opened where it is not given and the rule needs images.

    Raises:
        ConfigError: a rule that needs labels, of which there are no statistics.
        DataError: no training pictures, or test pictures among them.
        PoolError: an expert without a task, so without images.
    """
    on = rule_sees(run.settings)
    if on is None:
        return None
    if rule_of(run.settings).needs == "labels":
        raise ConfigError(
            f"rule={rule_name(run.settings)} needs labels, and no statistics here are of labels."
        )
    data = open_data(run.settings, run.inputs.tasks) if data is None else data
    images = looked_at(run, data, on, rule_images(run.settings))
    refuse_missing(pool.names, images)
    return Collected(partial(_in_files, run, pool, images), partial(_walk, run, pool, images))


@contextmanager
def _walk(
    run: Run, pool: Pool, images: Mapping[str, ImageSet], merged: Mapping[str, Tensor]
) -> Iterator[Walking]:
    """A walk through a merge. Nothing of it is kept: another merge is another walk."""
    # Each image passes twice through every block: as the merge has it, and as it is then.
    steps = {name: range(2 * pool.backbone.blocks * len(images[name])) for name in pool.names}
    with image_progress("Walking with unlabeled images, block by block", steps) as progress:
        yield Walking(pool, images, merged, progress=progress, **_passes(run))


def _passes(run: Run) -> dict[str, Any]:
    """How images pass for statistics: in full precision, as sums of products over all images are what the rule solves
    with."""
    return {"device": run.passes["device"], "batch_size": min(run.passes["batch_size"], 64)}


def _in_files(run: Run, pool: Pool, images: Mapping[str, ImageSet], kind: Kind) -> dict[str, _InFile]:
    """Every expert's statistics of a kind, each in a file that is named by what they are made from."""
    found = {}
    passes = _passes(run)
    with image_progress(f"Statistics of unlabeled images: {_TITLES[kind]}", images) as progress:
        for name in pool.names:
            seen = images[name]
            made_from = {
                "kind": _TITLES[kind],
                "images": seen.digest(),
                **run.encoders("base", *(() if kind == "activation" else (f"experts/{name}",))),
                **({"head": head_digest(pool.heads[name])} if kind == "fisher" else {}),
            }
            make = partial(collect, kind, pool, name, seen, progress=progress, **passes)
            found[name] = _InFile(cached_file(cache_dir() / "statistics", made_from, make))
    return found
