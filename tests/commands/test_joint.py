"""Surgery jointly with merging coefficients, by words alone: `method=surgery coefficients=layerwise`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_vit_pool
from methods.test_contract import adapted, build, config
from safetensors.torch import load_file

from adamerge.__main__ import main

SMALL = (
    "suite.tasks=[digits,signs]",
    "++suite.limit=20",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "method.schedule.steps=2",
)
COMBINED = [
    (method, coefficients)
    for method in ("surgery", "surgery_v2", "tinting", "symerge_block")
    for coefficients in ("layerwise", "taskwise")
]


@pytest.mark.parametrize(("name", "coefficients"), COMBINED)
def test_both_are_trained_and_a_cut_run_goes_on_bit_by_bit(
    name: str, coefficients: str, tmp_path: Path
) -> None:
    words = (f"coefficients={coefficients}",)
    start = build(config(name, words), make_vit_pool()).state_dict()
    whole = adapted(name, folder=tmp_path / "whole", words=words).state_dict()
    assert len(start["merging.values"]) == (1 if coefficients == "taskwise" else len(make_vit_pool().keys))
    assert all(not torch.equal(start[key], value) for key, value in whole.items())
    with pytest.raises(ConnectionAbortedError):
        adapted(name, folder=tmp_path / "cut", stop=2, words=words)
    torch.manual_seed(99)
    resumed = adapted(name, folder=tmp_path / "cut", words=words).state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_coefficients_at_rest_are_the_method_s_default() -> None:
    plain, at_rest = adapted("surgery"), adapted("surgery", words=("coefficients=at_rest",))
    assert plain.state_dict().keys() == at_rest.state_dict().keys()
    assert all(torch.equal(v, at_rest.state_dict()[k]) for k, v in plain.state_dict().items())


def test_a_joint_run_its_export_and_what_goes_on_from_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint = ("coefficients=layerwise", "method.model.coefficients.lr=3.0e-2")
    main(["train", "method=surgery", *joint, *SMALL])
    (folder,) = [path.parent for path in home.glob("outputs/mini/surgery/*/results.json")]
    state = load_file(folder / "state.safetensors")
    table = json.loads((folder / "coefficients.json").read_text())
    values = state["merging.values"]
    torch.testing.assert_close(torch.tensor(table["values"]), values.clamp(0, 1))
    # Eight updates by Adam at their own rate, 3e-2 each at the most; at the adapters' 1e-3 none moves by 0.01.
    start = yaml.safe_load((folder / "config.yaml").read_text())["method"]["model"]["coefficients"]["start"]
    moved = (values - start).abs()
    assert (moved > 0.01).float().mean() > 0.5
    assert moved.max() < 0.241
    assert len({key for key in state if key.startswith("adapters.")}) == 4
    results = json.loads((folder / "results.json").read_text())
    assert results["trainable_parameters"] == sum(value.numel() for value in state.values())

    main(["export", f"run={folder}", f"out={home / 'exported'}", "format=safetensors"])
    ours, exported = (
        load_file(folder / "merged.safetensors"),
        load_file(home / "exported" / "image_encoder.safetensors"),
    )
    assert all(torch.equal(value, exported[key]) for key, value in ours.items())

    # Another part goes on from the coefficients, at rest or learned further.
    main(["train", "method=surgery", f"start={folder}", *SMALL])
    main(["train", "method=tinting", f"start={folder}", *SMALL, "method.schedule.steps=0"])
    (tinted,) = [path.parent for path in home.glob("outputs/mini/tinting/*/results.json")]
    started = load_file(tinted / "state.safetensors")["merging.values"]
    torch.testing.assert_close(started, values.clamp(0, 1))


def test_a_method_without_such_a_part_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "method=wemoe", "coefficients=layerwise", *SMALL])
    assert "method.model.coefficients: WEMoE has no such option" in capsys.readouterr().err
