"""The heads of a suite and the words of their rows, as far as they are known without its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adamerge.errors import CheckpointError
from adamerge.merging import Head
from adamerge.models.heads import open_head
from adamerge.models.open_pool import check_heads
from adamerge.runs.backbones import backbone_of
from adamerge.runs.class_names import stated_classes
from adamerge.runs.probing import from_pictures
from adamerge.runs.suite_pool import open_heads
from adamerge.settings.commands import PoolSettings
from adamerge.tasks.task import tasks_without_pictures


@dataclass(frozen=True)
class Known:
    """What is known.

    Attributes:
        heads: by task.
        classes: the words of their rows; None of a head file, whose rows are in the order of the data's labels.
        missing: why there is no head of some tasks; empty where all have one.
    """

    heads: dict[str, Head]
    classes: dict[str, tuple[str, ...] | None]
    missing: str = ""


def heads_without_pictures(settings: PoolSettings, paths: Mapping[str, str], base_id: str) -> Known:
    """Head files where there are some among the paths, else zero-shot heads of the words that the suite lists.

    Raises:
        PoolError: heads that do not fit the backbone.
    """
    if from_pictures(settings):
        return Known(
            {}, {}, f"checkpoints.heads={settings.checkpoints.heads} makes them of training pictures"
        )
    names = [*settings.suite.tasks, *settings.suite.unseen]
    tasks = tasks_without_pictures(names, settings.suite.catalogue)
    files = {name: paths[f"heads/{name}"] for name in names if f"heads/{name}" in paths}
    if settings.checkpoints.heads is not None and not files:
        return Known({}, {}, "the files of checkpoints.heads are not here")
    if settings.checkpoints.text is not None and not files and "text" not in paths:
        return Known({}, {}, "the CLIP of checkpoints.text, whose text tower makes them, is not here")
    worded = [task for task in tasks if files or task.classes is not None]
    try:
        given = open_heads(settings, worded, paths, base_id) if worded else {}
        heads = {
            name: open_head(given[name], settings.checkpoints.normalize) for name in names if name in given
        }
    except CheckpointError as error:
        return Known({}, {}, str(error).splitlines()[0].rstrip("."))
    backbone = backbone_of(settings.backbone)
    check_heads(heads, given, (), backbone.embed_dim)
    classes = {
        task.name: None if files and not stated_classes(paths, task.name)[0] else task.classes
        for task in worded
    }
    unknown = [name for name in names if name not in heads]
    missing = (
        f"only the pictures' folders or tables name the classes of {', '.join(unknown)}" if unknown else ""
    )
    return Known(heads, classes, missing)
