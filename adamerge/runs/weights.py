"""The weight files that a config names: where they lie, which are missing, what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from adamerge.checkpoints import fingerprint
from adamerge.checkpoints.addresses import RANDOM, check_there, locate
from adamerge.errors import CheckpointError, ConfigError
from adamerge.models.coefficient_files import start_file
from adamerge.settings.commands import PoolSettings
from adamerge.settings.patterns import fill
from adamerge.settings.sections import OF_PICTURES

_THREADS = 4


def checkpoint_paths(settings: PoolSettings, experts_exist: bool = True) -> dict[str, str]:
    """Every file the run reads weights from: {"base": path, "experts/<task>": path, "heads/<task>", "start"}.

    Raises:
        CheckpointError: files that are not on this machine, all of them, or that cannot be fetched.
    """
    places = checkpoint_places(settings)
    paths: dict[str, str] = {}
    missing: list[str] = []
    for name, place in places.items():
        try:
            path = locate(place, settings.backbone.model, settings.download)
            if (experts_exist or not name.startswith("experts/")) and not path.startswith(RANDOM):
                check_there(path)
            paths[name] = path
        except CheckpointError as error:
            if settings.download and place.startswith(("hf-hub:", "open_clip:")):
                raise  # without a network every further place would take half a minute to say the same
            missing.append(str(error))
    if missing:
        raise CheckpointError(_missing(missing, len(places), settings.checkpoints.origin))
    return paths


def _missing(texts: list[str], of: int, origin: str) -> str:
    lines = [f"{len(texts)} of {of} weight files are missing."]
    lines += [f"  {text.splitlines()[0]}" for text in texts]
    advice = dict.fromkeys(line.strip() for text in texts for line in text.splitlines()[1:])
    return "\n".join([*lines, *(f"  {line}" for line in (*advice, origin) if line)])


def checkpoint_places(settings: PoolSettings) -> dict[str, str]:
    """The places of those files as the config names them, which may be on the hub."""
    checkpoints, suite = settings.checkpoints, settings.suite
    paths = {"base": checkpoints.base}
    if checkpoints.text is not None:
        paths["text"] = checkpoints.text
    for kind, pattern in (("experts", checkpoints.experts), ("heads", checkpoints.heads)):
        if pattern is not None and pattern not in OF_PICTURES:
            tasks = [*suite.tasks, *(suite.unseen if kind == "heads" else [])]
            names = checkpoints.names
            paths |= {
                f"{kind}/{task}": _path_of(pattern, task, kind, names.get(task, task)) for task in tasks
            }
    for name in suite.irrelevant:
        pattern = given(checkpoints.irrelevant, "irrelevant")
        paths[f"experts/{name}"] = fill(pattern, "checkpoints.irrelevant", name=name)
    for task in settings.attack.tasks:
        paths[f"experts/{task}"] = poisoned_path(settings, task)
    if settings.start is not None:
        paths["start"] = str(start_file(settings.start))
    return paths


def poisoned_path(settings: PoolSettings, task: str) -> str:
    """The file of a task's expert with a backdoor."""
    pattern, attack = given(settings.checkpoints.poisoned, "poisoned"), settings.attack
    return fill(pattern, "checkpoints.poisoned", task=task, target=attack.target, size=attack.size)


def given(pattern: str | None, kind: str) -> str:
    """A pattern of files' names that the checkpoints need not have.

    Raises:
        ConfigError: they do not have it.
    """
    if pattern is None:
        raise ConfigError(f"checkpoints.{kind} has no value; give the pattern of the files' names.")
    return pattern


def _path_of(pattern: str | Mapping[str, str], task: str, kind: str, name: str) -> str:
    """`name` is the family's spelling of the task in a pattern."""
    if isinstance(pattern, str):
        return fill(pattern, f"checkpoints.{kind}", task=name)
    if task not in pattern:
        raise ConfigError(
            f"checkpoints.{kind} has no entry for task '{task}'.\n"
            f"  Give +checkpoints.{kind}.{task}=<file>, or a pattern such as 'folder/{{task}}.safetensors'."
        )
    return str(pattern[task])


def fingerprints(paths: Mapping[str, str]) -> dict[str, str]:
    """Content ids of the weight files; `random:<seed>` stands for itself."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(paths, threads.map(_content, paths.values()), strict=True))


def _content(path: str) -> str:
    return path if path.startswith(RANDOM) else fingerprint(path)
