"""`finetune lora=` writes what PEFT loads; a merge of such experts is exported as one adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints.adapting import CLIPVisionModelWithProjection
from commands.conftest import QUICK, finished
from composing import settings
from peft import PeftModel
from reports.report import BASE
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig

from adamerge.__main__ import main
from adamerge.checkpoints import hf_to_open_clip, open_checkpoint
from adamerge.export.hf import vision_config, vision_state
from adamerge.models.clip import ImageEncoder, build_clip
from adamerge.models.low_rank import TARGETS, LowRankEncoder
from adamerge.runs.backbones import model_of
from adamerge.settings.commands import FinetuneSettings

MINI = model_of(settings("train").backbone)
ORIGIN = open_checkpoint(BASE).image_encoder()
SEED = [
    "finetune",
    f"checkpoints.base={BASE}",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


def in_transformers() -> CLIPVisionModelWithProjection:
    """Mini's base as Hugging Face's class."""
    config = {k: v for k, v in vision_config(ORIGIN, MINI).items() if k != "architectures"}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    model.load_state_dict(vision_state(ORIGIN), strict=True)
    return model


def merged_by_peft(folder: Path) -> dict[str, Tensor]:
    return hf_to_open_clip(
        PeftModel.from_pretrained(in_transformers(), str(folder)).merge_and_unload().state_dict()
    )


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=1e-6, rtol=0, msg=key)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of two tasks' LoRA experts, made once."""
    home = tmp_path_factory.mktemp("experts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAMERGE_CACHE", str(cache))
        patch.setenv("ADAMERGE_OUTPUTS", str(home / "outputs"))
        pattern = f"checkpoints.experts='{home}/experts/{{task}}.safetensors'"
        more = ["lora=3", "lora_alpha=6", "steps=3", "warmup=1", "batch_size=8", "optimizer.lr=0.01", pattern]
        main([*SEED, "suite.tasks=[digits,signs]", *more])
    return home / "experts"


def test_an_expert_is_a_folder_that_peft_loads(experts: Path) -> None:
    folder = experts / "digits"
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 4 * len(TARGETS) * 2  # blocks, linears, factors
    assert all(value.any() for value in tensors.values())
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(TARGETS)) == (3, 6, config["target_modules"])
    expert = open_checkpoint(folder).on(ORIGIN, "").image_encoder()
    same(expert, merged_by_peft(folder))
    model = PeftModel.from_pretrained(in_transformers(), str(folder))
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = ImageEncoder(build_clip(MINI).visual)
    encoder.load_state_dict(expert)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), model(images).image_embeds, atol=1e-5, rtol=1e-5)


def test_a_merge_of_them_is_one_adapter(experts: Path, home: Path) -> None:
    files = ["checkpoints=files", f"checkpoints.base={BASE}", f"checkpoints.experts='{experts}/{{task}}'"]
    main(["merge", *files, *QUICK[:3]])
    run = finished(home)["task_arithmetic"]
    main(["export", f"run={run}", "format=peft", f"out={home / 'out'}"])
    tensors = load_file(home / "out/adapter_model.safetensors")
    assert {value.shape[0] for key, value in tensors.items() if ".lora_A." in key} == {6}
    main(["export", f"run={run}", "format=safetensors", f"out={home / 'whole'}"])
    same(load_file(home / "whole/image_encoder.safetensors"), merged_by_peft(home / "out"))
    assert "PeftModel" in (home / "out/README.md").read_text()


def test_a_merge_of_other_experts_is_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["merge", *QUICK[:3]])
    run = finished(home)["task_arithmetic"]
    with pytest.raises(SystemExit) as stopped:
        main(["export", f"run={run}", "format=peft", f"out={home / 'out'}"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "is no matrix of an attention or MLP" in said or "as factors it would be no smaller" in said
    assert "format=hf" in said
    assert not (home / "out").exists()


def test_only_the_factors_are_trained_and_at_first_they_change_nothing() -> None:
    encoder = ImageEncoder(build_clip(MINI).visual)
    encoder.load_state_dict(ORIGIN)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = encoder(images)
    trained = LowRankEncoder(encoder, 2, 4.0, ["v_proj", "fc2"])
    torch.testing.assert_close(trained(images), before)
    assert [name for name, p in trained.named_parameters() if p.requires_grad] == [
        f"{side}.{i}" for side in ("down", "up") for i in range(8)
    ]
    trained(images).square().sum().backward()
    assert all(up.grad is not None and up.grad.any() for up in trained.up)
    assert {module.rpartition(".")[2] for module in trained.factors} == {"v_proj", "fc2"}
    with torch.no_grad():
        for up in trained.up:
            up.add_(torch.randn_like(up))
        assert not torch.allclose(trained(images), before)


def test_the_options_name_the_linears_that_there_are(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(FinetuneSettings.model_fields["lora_targets"].default) == TARGETS
    for words, text in ((["lora=2", "lora_targets=[qkv]"], "q_proj"), (["lora_alpha=2"], "lora=16")):
        with pytest.raises(SystemExit) as stopped:
            main([*SEED, *words])
        assert stopped.value.code == 2
        assert text in capsys.readouterr().err
