"""`doctor` looks at everything, tells what to do, and goes on after the first problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from composing import settings
from omegaconf import OmegaConf
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks

from adamerge.__main__ import main
from adamerge.checkpoints import open_checkpoint, save_tensors
from adamerge.diagnosis.environment import disk, package
from adamerge.diagnosis.need import Need, activation_bytes, enough, memory_need, meta_pool
from adamerge.memory import _available, _left_in_container, free_memory_bytes
from adamerge.settings.paths import PACKAGE, conf_dir

TWO = ("suite.tasks=[digits,signs]", "trainer.accelerator=cpu")
BASE = PACKAGE / "zoo/mini/base"


def lines_of(text: str) -> dict[str, tuple[str, str]]:
    """{what: (status, the rest)} of a report; of several lines about one thing the last."""
    found = {}
    for line in text.splitlines():
        status, _, rest = line.partition(" ")
        if status in ("ok", "warning", "problem"):
            what, _, text = rest.strip().partition(": ")
            found[what] = (status, text)
    return found


def sick(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, tuple[str, str]], str]:
    """The report of a doctor that finds problems, and the end on stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *words])
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    return lines_of(told.out), told.err


def test_nothing_is_wrong_with_the_embedded_suite(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", *TWO])
    out = capsys.readouterr().out
    found = lines_of(out)
    assert {status for status, _ in found.values()} == {"ok"}
    assert {"python", "torch", "pytorch-lightning", "machine", "device", "outputs", "base"} < set(found)
    assert found["data signs"][1] == "1,000 pictures (50 decoded), 12 classes"
    assert "sha256 right" in found["expert digits"][1]
    assert "method=adamerging_layerwise" in found["checked with"][1]
    assert "Nothing is in the way" in out
    assert list(home.iterdir()) == []


def test_every_problem_of_the_files_is_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = open_checkpoint(BASE).image_encoder()
    (home / "base.safetensors").write_bytes(b"")
    save_tensors(home / "base.safetensors", encoder)
    wide = {**encoder, "visual.conv1.weight": torch.zeros(128, 3, 16, 16)}
    save_tensors(home / "x" / "wide.safetensors", wide)
    damaged = home / "x" / "damaged.safetensors"
    save_tensors(damaged, encoder)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    save_tensors(home / "x" / "base.safetensors", encoder)
    for task in ("wide", "damaged", "base", "gone"):
        (home / "photos" / task / "cat").mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(home / "photos" / task / "cat" / "0.png")
    (home / "photos" / "damaged" / "cat" / "1.png").write_bytes(b"no picture")
    found, error = sick(
        capsys, "suite=folders", "suite.data=photos", "suite.tasks=[wide,damaged,base,gone,nowhere]", TWO[1],
        "checkpoints=files", "checkpoints.base=base.safetensors", "checkpoints.experts=x/{task}.safetensors",
        "backbone=mini",
    )  # fmt: skip
    expected = {
        "base": ("problem", "no text tower"),
        "expert wide": ("problem", "does not fit the backbone"),
        "expert damaged": ("problem", "damaged"),
        "expert base": ("warning", "the content of the base"),
        "expert gone": ("problem", "nothing at x/gone.safetensors"),
        "data wide": ("ok", "1 pictures (all opened, 1 decoded), 1 classes"),
        "data damaged": ("problem", "1.png cannot be read"),
        "data nowhere": ("problem", "no folder photos/nowhere"),
        "memory to run": ("ok", "MiB"),
    }
    for what, (status, text) in expected.items():
        assert found[what][0] == status, what
        assert text in found[what][1], what
    assert "7 problems and 1 warning" in error


def test_mistakes_of_the_config_do_not_stop_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, error = sick(capsys, *TWO, "sede=1", "suite=nope", "method.schedule.batch_size=0")
    assert found["config"][0] == "problem"
    assert found["data digits"][0] == "ok"
    assert "3 problems" in error
    found, _ = sick(capsys, "suite=folders", "checkpoints=files")
    assert found["data"] == ("warning", "not checked: the config has mistakes")
    assert found["torch"][0] == "ok"
    with pytest.raises(SystemExit):
        main(["doctor", "-m", "seed=0,1"])
    assert "leave out -m" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = sick(capsys, TWO[0], "trainer=gpu")
    assert found["device"][0] == "problem"
    assert found["memory to open"][0] == "ok"


def test_the_options_are_those_of_train(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--cfg", "job", "method=surgery"])
    doctor = capsys.readouterr().out
    main(["train", "--cfg", "job", "method=surgery"])
    assert doctor == capsys.readouterr().out


def config(method: str, *words: str) -> Any:
    return settings("train", f"method={method}", "backbone=vit_b_32", *words)


@pytest.mark.parametrize(
    ("dtype", "share"), [("bfloat16", 1 / 2), ("int8", 1 / 4), ("int4", 1 / 8), ("int3", 3 / 32)]
)
def test_the_task_vectors_need_the_memory_of_their_bits(dtype: str, share: float) -> None:
    full, few = (
        memory_need(config("adamerging_layerwise", f"checkpoints.dtype={d}")) for d in ("float32", dtype)
    )
    assert few.vectors == pytest.approx(share * full.vectors, rel=1e-6)
    assert (few.trained, few.merged) == (full.trained, full.merged)


def test_the_memory_need_of_vit_b_32() -> None:
    """The counts of ViT-B/32: 87.8 M parameters, 4 bytes each, 8 tasks, 152 tensors."""
    need = memory_need(config("adamerging_layerwise"))
    encoder = 87_849_216 * 4
    assert (need.base, need.merged, need.gradient) == (encoder, encoder, encoder)
    assert (need.expert, need.vectors) == (encoder, 8 * encoder)
    assert need.trained == 16 * 8 * 152
    assert need.to_run == 11 * encoder + need.trained + need.activations
    static = memory_need(config("task_arithmetic"))
    assert (static.gradient, static.trained) == (0, 0)


def test_activations_are_those_that_autograd_keeps() -> None:
    model: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "backbone" / "mini.yaml").model)
    from adamerge.models.clip import ImageEncoder, build_clip

    encoder = ImageEncoder(build_clip(model).visual)
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(torch.randn(4, 3, 32, 32))
    real = sum(size for size, _ in kept.values()) / 4
    assert activation_bytes(meta_pool(model, ["a"], torch.float32), 32) == pytest.approx(real, rel=0.15)


def test_too_little_memory_disk_or_a_wrong_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.requirements import Requirement

    need = Need(base=10, expert=20, vectors=20, merged=10, gradient=10, trained=1, activations=5)
    for free, status in [(55, "problem"), (60, "warning"), (100, "ok"), (None, "warning")]:
        monkeypatch.setattr("adamerge.diagnosis.need.free_memory_bytes", lambda device, free=free: free)
        assert [f.status for f in enough(need, torch.device("cpu"))][1] == status
    assert [f.status for f in disk("outputs", tmp_path / "new" / "folder", 1)] == ["ok"]
    assert [f.status for f in disk("outputs", tmp_path, 1 << 60)] == ["problem"]
    (tmp_path / "file").write_text("")
    assert [f.status for f in disk("outputs", tmp_path / "file" / "below", 1)] == ["problem"]
    assert package(Requirement("torch>=99")).advice == "pip install 'torch>=99'"
    assert package(Requirement("no-such-package")).text == "is not installed"


def test_free_memory_is_what_system_and_container_leave(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert _available(tmp_path / "meminfo") == 7 * 1024
    assert _left_in_container(tmp_path) is None
    for name, text in (
        ("memory.max", "100\n"),
        ("memory.current", "90\n"),
        ("memory.stat", "inactive_file 30\n"),
    ):
        (tmp_path / name).write_text(text)
    assert _left_in_container(tmp_path) == 40
    (tmp_path / "memory.max").write_text("max\n")
    assert _left_in_container(tmp_path) is None
    assert free_memory_bytes(torch.device("cpu")) > 0
