"""An image encoder is found behind any prefix and in any entry, and what lies beside it is understood or refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL, tiny_clip, vision_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from adamerge.checkpoints import open_checkpoint, open_clip_to_hf
from adamerge.checkpoints.convert import convert
from adamerge.errors import CheckpointError

STATE = vision_state()
BLOCK = "visual.transformer.resblocks.0."
HF_BLOCK = "vision_model.encoder.layers.0."
State = dict[str, Tensor]


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def hf(projection: bool = True) -> State:
    return {k: v for k, v in open_clip_to_hf(STATE).items() if projection or k != "visual_projection.weight"}


def bare() -> State:
    return {key.removeprefix("visual."): value for key, value in STATE.items()}


def equal(found: State, expected: State) -> bool:
    return set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


names = st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda name: "visual" not in name)
prefixes = st.lists(
    st.one_of(
        st.sampled_from(["module", "model", "_orig_mod", "image_encoder", "base_model", "clip"]), names
    ),
    max_size=4,
).map(lambda parts: "".join(f"{part}." for part in parts))
entries = st.sampled_from([(), ("net",), ("state_dict_ema",), ("state_dict", "model"), ("weights", "inner")])


@given(prefixes, st.sampled_from(["open_clip", "hf", "hf 5", "bare"]), entries, st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_prefix_in_any_entry(
    tmp_path: Path, prefix: str, form: str, entry: tuple[str, ...], head: bool
) -> None:
    renamed = {key.removeprefix("vision_model."): value for key, value in hf().items()}
    state = under(prefix, {"open_clip": STATE, "hf": hf(), "hf 5": renamed, "bare": bare()}[form])
    if head:
        state["classification_head.weight"] = torch.randn(5, MODEL["embed_dim"])
    loaded: dict = state
    for name in reversed(entry):
        loaded = {name: loaded, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    torch.save(loaded, tmp_path / "x.pt")
    assert equal(open_checkpoint(tmp_path / "x.pt").image_encoder(), STATE)


def test_the_prefix_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opened = open_checkpoint(under("model._orig_mod.", STATE))
    assert opened.place == "model._orig_mod"
    assert "the image encoder is that under model._orig_mod" in caplog.text


@pytest.mark.parametrize(
    ("both", "taken", "other"),
    [
        (lambda a, b: {"model": a, "ema": b}, "model", "ema"),
        (lambda a, b: {"state_dict_ema": b, "state_dict": a}, "state_dict", "state_dict_ema"),
        (
            lambda a, b: {"state_dict": under("model.", a) | under("ema_model.", b)},
            "state_dict.model",
            "ema_model",
        ),
        (lambda a, b: a | under("ema.", b), "that at the top", "ema"),
    ],
)
def test_of_a_model_and_its_average_the_model_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, both: Any, taken: str, other: str
) -> None:
    average = vision_state(1)
    torch.save(both(STATE, average), tmp_path / "x.ckpt")
    assert equal(open_checkpoint(tmp_path / "x.ckpt").image_encoder(), STATE)
    assert f"taken is {taken}" in caplog.text
    assert equal(open_checkpoint(f"{tmp_path / 'x.ckpt'}::{other}").image_encoder(), average)
    with pytest.raises(CheckpointError, match="no models under 'nothing'"):
        open_checkpoint(f"{tmp_path / 'x.ckpt'}::nothing")


def test_two_models_of_one_rank_are_not_guessed() -> None:
    with pytest.raises(CheckpointError, match=r"2 times(.|\n)*student, teacher(.|\n)*::teacher"):
        open_checkpoint(under("student.", STATE) | under("teacher.", STATE))


# What is left over.


def lora(stem: str, names: tuple[str, ...] = ("lora_A.default.weight", "lora_B.default.weight")) -> State:
    return {f"{stem}{name}": torch.randn(2, 2) for name in names}


LORAS = {
    "PEFT before 0.6": hf() | lora(f"{HF_BLOCK}mlp.fc1."),
    "loralib": hf() | lora(f"{HF_BLOCK}self_attn.q_proj.", ("lora_A", "lora_B")),
    "embedding": hf() | lora(f"{HF_BLOCK}self_attn.q_proj.", ("lora_embedding_A.default",)),
    "PEFT, wrapped": under("base_model.model.", hf() | lora(f"{HF_BLOCK}mlp.fc1.")),
    "open_clip names": STATE | lora(f"{BLOCK}mlp.c_fc."),
    "text tower": STATE | lora("transformer.resblocks.0.mlp.c_fc."),
    "adapter alone": lora(f"base_model.model.{HF_BLOCK}mlp.fc1.", ("lora_A.weight", "lora_B.weight")),
}


@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_is_called_a_lora(kind: str) -> None:
    with pytest.raises(CheckpointError, match=r"LoRA that is not merged(.|\n)*lora_(.|\n)*merge_and_unload"):
        open_checkpoint(LORAS[kind]).image_encoder()


def test_an_adapter_beside_the_weights_refuses_the_folder_and_its_file(tmp_path: Path) -> None:
    save_file(hf(), tmp_path / "model.safetensors")
    save_file(lora("x."), tmp_path / "adapter_model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(
            CheckpointError, match=r"LoRA(.|\n)*adapter_model.safetensors(.|\n)*merge_and_unload"
        ):
            open_checkpoint(place)


@pytest.mark.parametrize("state", [STATE, hf(), under("model.", STATE)], ids=["open_clip", "hf", "wrapped"])
def test_whatever_is_not_understood_is_named(state: State) -> None:
    for key in ("prompt_tokens", "resampler.weight", "mean"):
        with pytest.raises(CheckpointError, match=rf"1 tensor beside .* not understood: {key}"):
            open_checkpoint(state | {key: torch.zeros(3)}).image_encoder()


def test_text_towers_buffers_and_counters_are_known() -> None:
    clip = {k: v.detach() for k, v in tiny_clip().state_dict().items()}
    beside = {
        "n_averaged": torch.tensor(3), "attn_mask": torch.zeros(2, 2), "global_step": torch.tensor(7),
        "visual_bn.num_batches_tracked": torch.tensor(1), "logit_bias": torch.tensor(0.0),
    }  # fmt: skip
    assert equal(open_checkpoint(clip | beside).image_encoder(), STATE)
    whole = open_checkpoint(clip | beside).whole()
    assert set(clip) <= set(whole)
    ids = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    assert equal(open_checkpoint(hf() | ids).image_encoder(), STATE)


CLASSIFIERS = {
    "CLIPForImageClassification": hf(projection=False) | {"classifier.weight": torch.randn(3, 16)},
    "hidden width": STATE | {"head.weight": torch.randn(3, 16), "head.bias": torch.zeros(3)},
    "behind a wrapper": under("clip.", hf(projection=False)) | {"classifier.weight": torch.randn(3, 16)},
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_on_other_features_is_refused_by_name_everywhere(kind: str, tmp_path: Path) -> None:
    torch.save(CLASSIFIERS[kind], tmp_path / "x.pt")
    for use in (
        lambda path: open_checkpoint(path).image_encoder(),
        lambda path: open_checkpoint(path).whole(),
        convert,
    ):
        with pytest.raises(
            CheckpointError, match=r"classifier of its own: (classifier|head)\.weight(.|\n)*mean over"
        ):
            use(tmp_path / "x.pt")


def test_a_zero_shot_head_beside_its_encoder_is_not_used_and_said(caplog: pytest.LogCaptureFixture) -> None:
    head = {"module.classification_head.weight": torch.randn(3, 8)}
    opened = open_checkpoint(under("module.model.", STATE) | head)
    assert equal(opened.image_encoder(), STATE)
    assert "holds a head (classification_head.weight), which is not used" in caplog.text
    assert opened.head().weight.shape == (3, 8)


# Numbers that are no weights.

NARROW = [
    torch.int8,
    torch.uint8,
    torch.int32,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.bool,
]
WIDE = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@given(st.sampled_from(sorted(STATE)), st.sampled_from(NARROW + WIDE), st.booleans())
@settings(max_examples=60, deadline=None)
def test_only_floating_point_is_taken_as_weights(key: str, dtype: torch.dtype, hugging_face: bool) -> None:
    state = STATE | {key: STATE[key].to(dtype)}
    if hugging_face and dtype.itemsize > 1:
        state = open_clip_to_hf(state)
    if dtype in WIDE:
        assert set(open_checkpoint(state).image_encoder()) == set(STATE)
    else:
        with pytest.raises(CheckpointError, match=rf"quantised: (.|\n)*{dtype}".replace(".", r"\.", 0)):
            open_checkpoint(state).image_encoder()


_WORDS = torch.zeros(2, 2, dtype=torch.int32)
PACKED = {
    "bitsandbytes (8 bit)": {"SCB": torch.ones(4)},
    "bitsandbytes (4 bit)": {"weight.absmax": torch.ones(4)},
    "GPTQ": {"qweight": _WORDS, "qzeros": _WORDS, "g_idx": torch.zeros(2)},
    "AWQ": {"qweight": _WORDS, "qzeros": _WORDS},
    "FP8": {"weight_scale": torch.ones(1)},
}


@pytest.mark.parametrize("kind", PACKED)
def test_the_quantisation_is_named(kind: str) -> None:
    packed = under(f"{HF_BLOCK}mlp.fc1.", PACKED[kind])
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(hf() | packed).image_encoder()
    assert f"quantised with {kind}" in str(error.value)


def test_a_configuration_that_speaks_of_quantisation_is_believed(tmp_path: Path) -> None:
    save_file(hf(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(CheckpointError, match="quantised with hqq"):
        open_checkpoint(tmp_path).image_encoder()


# Which file of a folder.


def test_a_folder_with_several_weight_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(STATE, tmp_path / "last.ckpt")
    (tmp_path / "optimizer.pt").touch()
    assert equal(open_checkpoint(tmp_path).image_encoder(), STATE)
    assert not caplog.text
    torch.save(vision_state(1), tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"several weight files: best.ckpt, last.ckpt"):
        open_checkpoint(tmp_path)
    save_file(hf(), tmp_path / "model.safetensors")
    assert equal(open_checkpoint(tmp_path).image_encoder(), STATE)
    assert "taken is model.safetensors, not best.ckpt, last.ckpt" in caplog.text
