"""The config folders as Hydra sees them: the package's own and the user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig
from yaml import YAMLError

from adamerge.errors import ConfigError
from adamerge.settings.groups import static_rules, words_of_rule


class ConfigFolders:
    """Groups, their choices and composed configs. Use it inside `opened_folders`."""

    def __init__(self, search: Sequence[str]) -> None:
        self.loader: Any = GlobalHydra.instance().config_loader()
        self._search = search
        self.choices = cache(self._choices)

    def groups(self) -> list[str]:
        names = self.loader.get_group_options("", ObjectType.GROUP, "hydra_settings", self._search)
        return [name for name in names if name != "hydra"]

    def _choices(self, group: str) -> list[str]:
        """Names of the YAMLs of a config group; empty where there is no such group."""
        names = self.loader.get_group_options(group, ObjectType.CONFIG, "hydra_settings", self._search)
        return sorted(name for name in names if not name.startswith("_")) if group else []

    def compose(self, config_name: str, words: Sequence[str]) -> DictConfig:
        """The config, with Hydra's own part."""
        try:
            return compose(config_name, overrides=[*self._search, *words], return_hydra_config=True)
        except YAMLError as error:
            raise ConfigError(f"A config file is no YAML: {error}") from error


_SEARCHPATH = "hydra.searchpath=["


def searched(words: Sequence[str]) -> list[Path]:
    """The folders that hydra.searchpath=[...] among the overrides adds: file://<folder>, pkg://<package> or a path."""
    entries = [word.removeprefix(_SEARCHPATH).rstrip("]") for word in words if word.startswith(_SEARCHPATH)]
    places = [place.strip(" '\"") for entry in entries for place in entry.split(",")]
    found: list[Path] = []
    for place in filter(None, places):
        scheme, _, rest = place.rpartition("://")
        if scheme == "pkg":
            name, *below = rest.split("/")
            spec = find_spec(name)
            found += [Path(at, *below) for at in (spec.submodule_search_locations or ())] if spec else []
        else:
            found.append(Path(rest))
    return found


def register_static_rules(*folders: Path) -> None:
    """Let `method=` take every rule that has no method of its own name: `method=ties` is `method=static rule=ties`.

    Args:
        folders: the config folders, the package's own by default. Those of an earlier call are forgotten.
    """
    store = ConfigStore.instance()
    store.repo.pop("method", None)
    for name, path in static_rules(*folders).items():
        chosen = {"override /rule@_global_.rule": name}
        node = {"defaults": ["static", chosen, "_self_"], **words_of_rule(path)}
        store.store(name=name, node=node, group="method", provider="adamerge")


@contextmanager
def opened_folders(main: Path, own: Path | None, words: Sequence[str]) -> Iterator[ConfigFolders]:
    """Look into the config folders.

    Args:
        main: the package's config folder.
        own: the user's (--config-dir).
        words: the overrides, among which may be hydra.searchpath=[...].
    """
    search = [word for word in words if word.startswith(_SEARCHPATH)]
    if own:
        entries = [f"file://{own}", *(word.partition("=[")[2].rstrip("]") for word in search)]
        search = [f"hydra.searchpath=[{','.join(filter(None, entries))}]"]
    GlobalHydra.instance().clear()
    store = ConfigStore.instance()
    before = store.repo.get("method")
    register_static_rules(*filter(None, (own, *searched(words), main)))
    with initialize_config_dir(str(main), version_base="1.3"):
        yield ConfigFolders(search)
    GlobalHydra.instance().clear()
    if before is not None:  # those of the job from within which somebody looks
        store.repo["method"] = before


def tidy(error: Exception) -> str:
    """Hydra's and OmegaConf's text without the search path and the advice on Hydra's own syntax."""
    lines = [line.strip() for line in str(error or error.__cause__).splitlines()]
    advice = ("See http", "full_key:", "object_type=", "provider=")
    kept = [
        line.partition(" Check that it's in")[0] for line in lines if line and not line.startswith(advice)
    ]
    for end in ("Search path:", "Config search path:"):
        if end in kept:
            kept = kept[: kept.index(end)]
    return " ".join(kept) or type(error).__name__
