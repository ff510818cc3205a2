"""Folders and their names inside the YAMLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

import adamerge
from adamerge.errors import ConfigError
from adamerge.settings import conf_dir, paths, register_resolvers


def resolved(text: str) -> str:
    register_resolvers()
    return OmegaConf.create({"path": text}).path


def test_package_is_the_installed_folder() -> None:
    assert resolved("${package:zoo/mini}") == str(Path(adamerge.__file__).parent / "zoo" / "mini")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ADAMERGE_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b/zoo"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/adamerge/zoo"),
        ({"HOME": "/home/me"}, "/home/me/.cache/adamerge/zoo"),
    ],
)
def test_cache(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str) -> None:
    for name in ("ADAMERGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolved("${cache:}/zoo") == expected
    assert resolved("${cache:zoo}") == expected


def test_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAMERGE_OUTPUTS", raising=False)
    assert resolved("${outputs:}") == "outputs"
    monkeypatch.setenv("ADAMERGE_OUTPUTS", "/o")
    assert resolved("${outputs:}") == "/o"


def test_the_config_folder_of_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "adamerge")
    with pytest.raises(ConfigError, match="no config folder"):
        conf_dir()
    for folder in (tmp_path / "conf", tmp_path / "adamerge" / "conf"):
        folder.mkdir(parents=True)
        (folder / "train.yaml").touch()
        assert conf_dir() == folder
