"""What a file holds beside the image encoder, or in its place: known and harmless, or a reason to refuse the file.

Reading past a tensor is the same as changing the model: an adapter left out makes an expert its base again, and
integers taken as weights are noise. So whatever is not understood is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping

from torch import Tensor

from adamerge.errors import CheckpointError

State = Mapping[str, Tensor]
log = logging.getLogger(__name__)

_TEXT = re.compile(
    r"(transformer|text|text_model)\..+|token_embedding\.weight|positional_embedding|text_projection(\.weight)?"
    r"|logit_scale|logit_bias|ln_final\.(weight|bias)"
)
_BUFFER = re.compile(r"(.+\.)?(position_ids|num_batches_tracked|attn_mask|n_averaged|num_updates|decay)")
_HEAD = re.compile(r"(.+\.)?(\w*head\w*|\w*classifier\w*|fc|probe|linear|logits)(\.\d+)?\.(weight|bias)")
_LORA = re.compile(
    r"(.*[._])?lora(_?[AB]|_embedding_[AB]|_magnitude_vector|_scaling)?([._].*)?", re.IGNORECASE
)
_ADAPTER = re.compile(
    r"(.*\.)?(ia3_l|hada_w\d\w*|lokr_w\d\w*|oft_\w+|boft_\w+|vera_\w+|fourierft_\w+|\w*adapters?|base_layer|"
    r"original_module|modules_to_save|prompt_encoder)(\..*)?"
)
# How the libraries name what belongs to their packed integers: the first that occurs gives the name.
_QUANTISED = {
    "bitsandbytes (8 bit)": re.compile(r".*\.(SCB|weight_format)"),
    "bitsandbytes (4 bit)": re.compile(r".*\.(absmax|quant_map|nested_absmax|quant_state\..+)"),
    "GPTQ": re.compile(r".*\.g_idx"),
    "AWQ": re.compile(r".*\.qzeros"),
    "HQQ": re.compile(r".*\.W_q"),
    "quanto": re.compile(r".*\.weight\._(data|scale)"),
    "torch's quantisation": re.compile(r".*(\.zero_point|\._packed_params.*)"),
    "FP8": re.compile(r".*\.(weight_scale|weight_scale_inv|input_scale)"),
}
_UNMERGED = (
    "Without it the model is another one, mostly its base. A LoRA is read with its scale beside it, "
    "adapter_config.json as PEFT writes it; or merge it into the weights and save them: model.merge_and_unload() of "
    "PEFT, model.eval() of loralib."
)


def is_text(key: str) -> bool:
    """Whether a key, in either family's names, is one of CLIP's text tower."""
    return _TEXT.fullmatch(key) is not None


def refuse_adapters(state: State, source: str) -> None:
    """Raise a CheckpointError where an adapter was not merged into the weights."""
    for kind, pattern in (("LoRA", _LORA), ("adapter", _ADAPTER)):
        if found := [key for key in state if pattern.fullmatch(key)]:
            raise CheckpointError(
                f"{source} holds a {kind} that is not merged into the weights: {_some(found)}.\n  {_UNMERGED}"
            )


def unmerged(folder: str, files: Collection[str]) -> CheckpointError:
    """The refusal of whole weights with an adapter's files beside them."""
    return CheckpointError(
        f"{folder} holds an adapter (a LoRA or its like) that is not merged into the weights: "
        f"{', '.join(sorted(files))}.\n  Which of them is meant cannot be told. Name the adapter's file itself, which "
        "goes onto checkpoints.base; or merge it into the weights, merge_and_unload() in PEFT, and save those alone."
    )


def refuse_quantised(state: State, source: str, method: str = "") -> None:
    """Raise a CheckpointError where weights are integers or 8-bit floats, or packed.

    Args:
        method: the quantisation that the file's configuration names.
    """
    packed = [
        key for key, value in state.items() if not _BUFFER.fullmatch(key) and value.ndim and _narrow(value)
    ]
    names = [name for name, pattern in _QUANTISED.items() if any(map(pattern.fullmatch, state))]
    if not (packed or names or method):
        return
    kind = f" with {method or names[0]}" if method or names else ""
    which = f"{_some(packed)} ({state[packed[0]].dtype})" if packed else "as its configuration or tensors say"
    raise CheckpointError(
        f"{source} is quantised{kind}: {which}, where weights in floating point are expected.\n"
        "  Give the weights as they were before they were quantised, or dequantise them (model.dequantize() of "
        "transformers) and save them."
    )


def _narrow(value: Tensor) -> bool:
    return not value.dtype.is_floating_point or value.dtype.itemsize < 2


def refuse_leftovers(
    state: State, encoder: Collection[str], source: str, features: int | None, head_is_used: bool = False
) -> None:
    """Raise a CheckpointError for tensors beside the encoder's that are no text tensors, no buffers and no unused head.

    A head on the projected features of the class token is what zero-shot CLIP has too; such a head is not used here
    (heads come from prompts or their own files), which is a warning.

    Args:
        encoder: the keys that belong to the image encoder.
        features: the width after the projection; None where the file has no projection.
        head_is_used: the file is named as that of a head too, so that nothing is left out.
    """
    left = [key for key in state if key not in encoder and not _known(key, state[key])]
    heads = [key for key in left if _HEAD.fullmatch(key)]
    if unknown := [key for key in left if key not in heads]:
        raise CheckpointError(
            f"{source} holds {_tensors(unknown)} beside the image encoder that are not understood: "
            f"{_some(unknown)}.\n  They are no text tensors, no head and no buffers, and leaving them out could change "
            "the model. Save the image encoder's state dict without them."
        )
    if not heads:
        return
    weights = [key for key in heads if key.endswith(".weight")]
    if features is None or any(state[key].ndim != 2 or state[key].shape[1] != features for key in weights):
        raise CheckpointError(
            f"{source} is an image classifier of its own: {_some(heads)} "
            f"{tuple(state[weights[0]].shape) if weights else ''} stands on features that zero-shot CLIP does not "
            f"have.\n  {OTHER_FEATURES}"
        )
    if not head_is_used:
        log.warning(
            "%s holds a head (%s), which is not used unless checkpoints.heads names this file.",
            source, ", ".join(heads),
        )  # fmt: skip


OTHER_FEATURES = (
    "Hugging Face's CLIPForImageClassification, for one, takes the mean over the patches before the projection. "
    "Such classifiers are not supported yet, and with zero-shot prompts in their place the model would be another one."
)


def _known(key: str, value: Tensor) -> bool:
    is_counter = value.ndim == 0 and not value.dtype.is_floating_point
    return is_text(key) or _BUFFER.fullmatch(key) is not None or is_counter


def _tensors(keys: Collection[str]) -> str:
    return f"{len(keys)} tensor{'' if len(keys) == 1 else 's'}"


def _some(keys: Collection[str]) -> str:
    first = list(keys)[:3]
    return ", ".join(first) + (f", ... ({len(keys)} tensors)" if len(keys) > len(first) else "")
