"""Where a checkpoint lies: a file or folder, or a name that leads to one.

- `<path>`: a file or folder; a file's extension may be left out. `<path>::<name>` is one of several models in a file.
- `local-dir:<folder>`: open_clip's name for a folder.
- `hf-hub:<owner>/<name>[@<revision>][/<file>]`: a repository of the Hugging Face Hub, whole or one file of it.
- `open_clip:<tag>`: the weights that open_clip publishes for the backbone, such as `open_clip:openai`.
- `random:<seed>`: no file; random weights, for measuring time and memory.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adamerge.checkpoints.peft_config import CONFIG, WEIGHTS
from adamerge.checkpoints.stated import CONFIG_FILES
from adamerge.checkpoints.weight_files import EXTENSIONS, WEIGHT_FILES, split_part
from adamerge.errors import CheckpointError

_HUB = re.compile(r"hf-hub:(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
RANDOM = "random:"


def locate(place: str, model: Any = None, download: bool = False) -> str:
    """The local path that a place leads to; `random:<seed>` stands for itself.

    Args:
        model: the backbone's open_clip name, for `open_clip:<tag>`.
        download: fetch what the hub's cache (HF_HOME) does not have; what was begun is resumed.

    Raises:
        CheckpointError: it is not on this machine and may not be fetched, or cannot be.
    """
    if place.startswith("hf-hub:"):
        return str(_from_hub(place, download))
    if place.startswith("open_clip:"):
        return str(_from_open_clip(place.removeprefix("open_clip:"), model, download))
    if place.startswith(RANDOM):
        return place
    file, part = split_part(place.removeprefix("local-dir:"))
    path = str(_with_extension(Path(file).expanduser()))
    return f"{path}::{part}" if part else path


def check_there(path: str) -> None:
    """Raise a CheckpointError unless there is something at the path."""
    if not Path(split_part(path)[0]).exists():
        raise CheckpointError(f"There is no checkpoint at {path}.")


def _with_extension(path: Path) -> Path:
    if path.exists() or path.suffix in EXTENSIONS:
        return path
    found = [p for p in (path.with_name(path.name + extension) for extension in EXTENSIONS) if p.exists()]
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise CheckpointError(f"{path} may be any of {names}; name one of them with its extension.")
    return found[0] if found else path


def _from_hub(place: str, download: bool) -> Path:
    match = _HUB.fullmatch(place)
    if match is None:
        raise CheckpointError(
            f"{place} is no place on the hub; expected hf-hub:<owner>/<name>[@<revision>][/<file>]."
        )
    repo, revision, file = match["repo"], match["revision"], match["file"]
    if file is not None:
        return _fetch(repo, file, revision, download)
    index = _first_of(repo, revision, download)
    if index.name.endswith(".index.json"):
        for shard in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
            _fetch(repo, shard, revision, download)
    return index


def _first_of(repo: str, revision: str | None, download: bool) -> Path:
    """A repository's weight file, or the index of its shards: the first of the usual names that it has, an adapter's
    before whole weights."""
    from huggingface_hub import list_repo_files, try_to_load_from_cache

    for name in (*WEIGHTS, *WEIGHT_FILES):
        if isinstance(found := try_to_load_from_cache(repo, name, revision=revision), str):
            return Path(found)
    if not download:
        raise _not_here(f"hf-hub:{repo}")
    try:
        names = list_repo_files(repo, revision=revision)
    except Exception as error:  # the hub's client raises its own, httpx's and OSErrors
        raise _unreachable(f"hf-hub:{repo}", error) from error
    for name in (*CONFIG_FILES, CONFIG):  # how the weights are meant to be used
        if name in names:
            _fetch(repo, name, revision, download)
    for name in (*WEIGHTS, *WEIGHT_FILES):
        if name in names:
            return _fetch(repo, name, revision, download)
    raise CheckpointError(f"hf-hub:{repo} holds no weights; expected one of {', '.join(WEIGHT_FILES)}.")


def _fetch(repo: str, file: str, revision: str | None, download: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=not download))
    except LocalEntryNotFoundError as error:
        raise (_unreachable if download else _not_here)(f"hf-hub:{repo}/{file}", error) from error
    except Exception as error:  # the hub's client raises its own, httpx's and OSErrors
        raise _unreachable(f"hf-hub:{repo}/{file}", error) from error


def _from_open_clip(tag: str, model: Any, download: bool) -> Path:
    import open_clip

    if not isinstance(model, str):
        raise CheckpointError(f"open_clip:{tag} needs an open_clip model name in backbone.model.")
    published = open_clip.get_pretrained_cfg(model, tag)
    if not published:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise CheckpointError(f"open_clip has no weights '{tag}' of {model}; it has {known}.")
    if repo := published.get("hf_hub"):
        return _from_hub(f"hf-hub:{repo.rstrip('/')}", download)
    if not download:
        raise _not_here(f"open_clip:{tag}")
    try:
        return Path(open_clip.download_pretrained(published))
    except Exception as error:  # urllib's errors, a wrong checksum
        raise _unreachable(f"open_clip:{tag}", error) from error


def _not_here(place: str, cause: Exception | None = None) -> CheckpointError:
    return CheckpointError(
        f"{place} is not on this machine.\n  Add download=true to fetch it, or put the weights in a file and name that."
    )


def _unreachable(place: str, cause: Exception) -> CheckpointError:
    lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    return CheckpointError(
        f"{place} could not be fetched: {lines[0]}\n"
        "  Without network, fetch it elsewhere into the hub's cache (HF_HOME), or name a file that you have."
    )
