"""What the processor or the GPU computes fast: the precision that `trainer.precision=auto` stands for."""

from __future__ import annotations

AUTO = "auto"


def suited_precision(accelerator: str) -> tuple[str, str]:
    """(one of Lightning's precisions, why): bf16-mixed where hardware multiplies matrices in bfloat16, else 32-true.

    Without such hardware bfloat16 is emulated, and a step takes up to ten times as long as in float32.

    Args:
        accelerator: as the trainer's option: auto, cpu, gpu, cuda or mps.
    """
    import torch  # settings, which ask, are read by commands that answer within a second

    if accelerator not in ("cpu", "mps") and torch.cuda.is_available():
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16-mixed", f"{torch.cuda.get_device_name()} multiplies in bfloat16"
        return "32-true", f"{torch.cuda.get_device_name()} does not multiply in bfloat16"
    if accelerator == "mps":
        return "32-true", "bfloat16 was not tried on this accelerator"
    if _cpu("_is_amx_tile_supported"):
        return "bf16-mixed", "this processor multiplies in bfloat16 (AMX)"
    if _cpu("_is_avx512_bf16_supported"):
        return "bf16-mixed", "this processor multiplies in bfloat16 (AVX-512)"
    return "32-true", "this processor does not multiply in bfloat16"


def _cpu(question: str) -> bool:
    """An answer of torch's, which not every release and system has."""
    import torch

    ask = getattr(torch.cpu, question, None)
    return bool(ask()) if callable(ask) else False
