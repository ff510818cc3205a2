"""Objects by `_target_`: the allow-list cannot be left, options are checked, plain values arrive."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import pytest
import torch
from omegaconf import OmegaConf

from adamerge.errors import ConfigError
from adamerge.objectives import entropy as module
from adamerge.settings import instantiate
from adamerge.settings.components import check_component, find_target
from adamerge.settings.mistakes import Mistakes

PROBES = module.__name__


class Probe:
    """Stands among the losses during a test."""

    def __init__(
        self,
        pool: torch.nn.Module,
        rank: int,
        start: float | torch.Tensor | None = None,
        mode: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (),
        names: dict[str, float] | None = None,
        on: bool = False,
        **rest: Any,
    ) -> None:
        if rank < 0:
            raise ValueError("rank must not be negative")
        self.options = (pool, rank, start, mode, sizes, names, on, rest)


class Closed(Probe):
    def __init__(self, rank: int = 1, share: float = 0.5) -> None:
        super().__init__(torch.nn.Identity(), rank)


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in (Probe, Closed):
        monkeypatch.setattr(probe, "__module__", PROBES)
        monkeypatch.setattr(module, probe.__name__, probe, raising=False)


def mistakes_of(**node: Any) -> list[str]:
    mistakes = Mistakes()
    check_component("part", node, mistakes, tried=True)
    return mistakes.lines


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.optim.adam.torch.load",
        "adamerge.commands.hydra_entry.import_module",
        "adamerge.settings.paths.os.system",
        "adamerge.settings.paths.Path",
        "adamerge.__main__.sys.exit",
        "pytorch_lightning.loggers.os.system",
        "subprocess.Popen",
        "adamerge",
        "adamerge.objectives.entropy",
        "adamerge..objectives.entropy.Entropy",
        "",
    ],
)
def test_nothing_beyond_the_allow_list_is_reached(path: str) -> None:
    with pytest.raises(ConfigError):
        find_target(path)
    with pytest.raises(ConfigError):
        instantiate({"_target_": path})


def test_a_mistyped_component_names_the_near_one() -> None:
    with pytest.raises(
        ConfigError, match=r"adamerge.objectives.entropy has no component 'Entrpy'; did you mean 'Entropy'"
    ):
        find_target("adamerge.objectives.entropy.Entrpy")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"rank": 2}, []),
        ({"rank": 2, "whatever": 1}, []),
        ({}, ["part.rank: Probe needs it; give part.rank=..."]),
        ({"rank": True}, ["part.rank: should be a whole number (got True)."]),
        ({"rank": "2"}, ["part.rank: should be a whole number (got '2')."]),
        ({"rank": 2, "start": 1}, []),
        ({"rank": 2, "start": None}, []),
        ({"rank": 2, "start": "x"}, ["part.start: should be a number (got 'x')."]),
        ({"rank": 2, "mode": "c"}, ["part.mode: should be 'a' or 'b' (got 'c')."]),
        ({"rank": 2, "sizes": [1, 2]}, []),
        ({"rank": 2, "sizes": [1, "2"]}, ["part.sizes: should be a whole number (got [1, '2'])."]),
        ({"rank": 2, "names": {"x": 0.5}}, []),
        ({"rank": 2, "names": {"x": "y"}}, ["part.names: should be a number (got {'x': 'y'})."]),
        ({"rank": 2, "on": 1}, ["part.on: should be true or false (got 1)."]),
    ],
)
def test_options_are_checked_against_the_signature(options: dict[str, Any], lines: list[str]) -> None:
    assert mistakes_of(_target_=f"{PROBES}.Probe", **options) == lines


def test_an_unknown_option_names_those_there_are() -> None:
    target = f"{PROBES}.Closed"
    assert mistakes_of(_target_=target, rnk=1) == [
        "part.rnk: Closed has no such option; did you mean 'rank'?"
    ]
    assert mistakes_of(_target_=target, qq=1) == ["part.qq: Closed has no such option; it has rank, share."]


def test_the_range_that_a_constructor_checks_is_a_mistake() -> None:
    assert mistakes_of(_target_=f"{PROBES}.Closed", rank=-1) == ["part: rank must not be negative."]


def test_what_the_program_gives_is_no_option_and_not_missing() -> None:
    assert mistakes_of(_target_="torch.optim.Adam", _partial_=True, lr=0.1, betas=[0.9, 0.99]) == []
    (line,) = mistakes_of(_target_="torch.optim.SGD", _partial_=True, learning=0.1)
    assert "params" not in line


def test_a_component_inside_a_component_is_checked_too() -> None:
    inner = {"_target_": "adamerge.objectives.entropy.Entropy", "epz": 1}
    (line,) = mistakes_of(_target_=f"{PROBES}.Probe", rank=1, names=inner)
    assert line == "part.names.epz: Entropy has no such option; did you mean 'eps'?"


def test_instantiate_passes_plain_values() -> None:
    node = OmegaConf.create(
        {
            "n": 3,
            "part": {
                "_target_": f"{PROBES}.Probe",
                "rank": "${n}",
                "sizes": [1],
                "extra": {"a": [1]},
            },
        }
    )
    pool = torch.nn.Identity()
    part: Any = OmegaConf.to_container(node.part, resolve=True)
    made = instantiate(part, pool, on=True)
    assert made.options == (pool, 3, None, "a", [1], None, True, {"extra": {"a": [1]}})
    assert type(made.options[4]) is list
    assert type(made.options[7]["extra"]["a"]) is list


def test_the_programs_options_win_over_the_yaml() -> None:
    made = instantiate({"_target_": f"{PROBES}.Probe", "rank": 1}, None, rank=5)
    assert made.options[1] == 5


def test_partial_makes_a_factory() -> None:
    factory = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.25})
    assert isinstance(factory, partial)
    optimizer = factory([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["lr"] == 0.25
