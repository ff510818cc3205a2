"""A trained model as one program: torch.export's archive or ONNX. Images in, features or one task's logits out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamerge.errors import PoolError, RunError
from adamerge.methods.base import Method
from adamerge.models.clip import Model, image_size

# A protobuf message cannot hold 2 GiB: above this the weights lie in a file beside the ONNX graph.
_ONNX_BYTES = 1800 << 20


class _Program(nn.Module):
    """Images (n, 3, H, W), normalised floats, to features (n, d) or to a task's logits (n, classes)."""

    def __init__(self, method: Method, task: str | None) -> None:
        super().__init__()
        # Not as a submodule: only the tensors that the call uses belong into the program, not the task vectors.
        self._call = method.features if task is None else lambda images: method.logits(images, task)

    def forward(self, images: Tensor) -> Tensor:
        return self._call(images)


def write_torch_export(folder: Path, method: Method, model: Model, task: str | None) -> None:
    """`model.pt2` for torch.export.load; any number of images.

    Raises:
        PoolError: the encoder depends on the task, and none is given; or the pool does not have the task.
        RunError: the method does what cannot be traced.
    """
    torch.export.save(_traced(method, model, task), folder / "model.pt2")


def write_onnx(folder: Path, method: Method, model: Model, task: str | None) -> None:
    """`model.onnx` with the input `images` and the output `features` or `logits`; any number of images.

    Raises:
        PoolError, RunError: as for torch.export; RunError also where the packages for ONNX are missing.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise RunError(
            f"format=onnx needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}.\n"
            "  pip install 'adamerge[onnx]', or choose format=torch_export, which needs nothing more."
        )
    program = _traced(method, model, task)
    large = sum(value.nbytes for value in method.pool.base.values()) > _ONNX_BYTES
    try:
        torch.onnx.export(
            program,
            f=folder / "model.onnx",
            input_names=["images"],
            output_names=["features" if task is None else "logits"],
            external_data=large,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RunError(_untraceable("ONNX", error)) from error


@torch.no_grad()
def _traced(method: Method, model: Model, task: str | None) -> Any:
    if task is not None and task not in method.pool.tasks:
        raise PoolError(f"task: this run has no task '{task}'; it has {', '.join(method.pool.tasks)}.")
    if task is None and method.by_task:
        raise PoolError(
            "This model's encoder depends on the task, so it cannot be exported without one.\n"
            f"  Give task=<one of {', '.join(method.pool.tasks)}>."
        )
    size = image_size(model)
    with method.eval().requires_grad_(False).merged_once(task):
        program, images = _Program(method, task), torch.randn(2, 3, size, size)
        program(images)  # a mistake of the method itself shows as what it is
        try:
            return torch.export.export(
                program, (images,), dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}}
            )
        except Exception as error:  # tracing raises many kinds; all mean that the method is not one program
            raise RunError(_untraceable("torch.export", error)) from error


def _untraceable(what: str, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"This method cannot be exported as one program: {what} says: {lines[0]}\n"
        "  `predict` runs it, and format=safetensors writes its encoder where it has a single one."
    )
