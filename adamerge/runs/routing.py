"""The routers of a run, by name: made from its weights and unlabeled images, and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import safe_open

from adamerge.cache_folder import cache_dir
from adamerge.checkpoints import open_tensors, save_tensors
from adamerge.checkpoints.cached import cached_file
from adamerge.errors import PoolError, RunError
from adamerge.merging import Pool
from adamerge.routing.joint import Joint
from adamerge.routing.mass import Mass, prepare
from adamerge.routing.router import Router
from adamerge.routing.sim import IMAGES, SiM, subspaces
from adamerge.runs.images import Data, open_data, suite_adapts_on
from adamerge.runs.protocol import looked_at
from adamerge.runs.run import Run

FILE = "routing.safetensors"  # what SiM keeps of each task
NO_IMAGES = "no images"


@dataclass(frozen=True)
class Made:
    """A router, and the images that it was made from, in words."""

    router: Router
    looks_at: str


def routers_of(run: Run, names: Sequence[str], pool: Pool, data: Data | None = None) -> dict[str, Made]:
    """The routers of these names among the pool's tasks.

    Args:
        pool: the experts, before any rule; a finished one has none, and no pre-trained encoder.
        data: the test split; opened where it is not given and SiM has not seen its images yet.

    Raises:
        PoolError: weights that are not here.
        DataError: no images where the suite's may be adapted on.
    """
    for name in names:
        if name != "joint" and pool.finished:
            raise PoolError(
                f"routing={name} needs {_NEEDS[name]}, and the weights that the run was made from are not here.\n"
                "  Put them back where they were, or give routing=joint, which needs the run folder alone."
            )
    return {name: _made(name, run, pool, data) for name in names}


_NEEDS = {
    "sim": "the features of the pre-trained encoder",
    "mass": "the experts' task vectors",
}


def _made(name: str, run: Run, pool: Pool, data: Data | None) -> Made:
    if name == "joint":
        return Made(Joint(pool.tasks), NO_IMAGES)
    if name == "mass":
        files = run.encoders(*(n for n in run.files if n == "base" or n.startswith("experts/")))
        made_from = {"kind": "mass", "tasks": pool.tasks, **files}
        prepared = open_tensors(cached_file(cache_dir() / "routing", made_from, partial(prepare, pool)))
        return Made(Mass.of(pool, prepared), NO_IMAGES)
    return _sim(run, pool, data)


def _sim(run: Run, pool: Pool, data: Data | None) -> Made:
    """SiM, of a few of the images that the suite lets a method adapt on. Its subspaces lie in the run's folder then, so
    that predicting needs no data."""
    path = run.folder / FILE
    if not path.exists():
        on, most = suite_adapts_on(run.settings.suite), run.settings.suite.adapt_images
        data = open_data(run.settings, run.inputs.tasks) if data is None else data
        count = IMAGES if most is None else min(IMAGES, most)
        images = looked_at(run, data, on, count, "routing=sim")
        kept = subspaces(pool, images, device=run.passes["device"])
        count = max(len(own) for own in images.values())  # a task may have fewer
        words = f"{count} {on.split} images per task, {on.protocol}"
        if not run.folder.is_dir():  # an encoder that is evaluated by itself has no folder
            return Made(SiM(pool.tasks, pool.encoder, pool.base, **kept), words)
        save_tensors(path, kept, {"tasks": json.dumps(pool.tasks), "looks_at": words, "format": "pt"})
    tasks, words = _about(path)
    rows = [tasks.index(task) for task in pool.tasks]
    kept = {name: tensor[rows] for name, tensor in open_tensors(path).items()}
    return Made(SiM(pool.tasks, pool.encoder, pool.base, **kept), words)


def _about(path: Path) -> tuple[list[str], str]:
    """The tasks, in the order of the rows, and the images that were looked at."""
    with safe_open(path, framework="pt") as file:
        found = file.metadata() or {}
    try:
        return list(json.loads(found["tasks"])), found["looks_at"]
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} does not name its tasks.\n  Delete it: it is then made anew.") from error
