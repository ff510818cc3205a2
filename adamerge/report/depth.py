"""Where a layer sits in the encoder, told from its name in the state dict."""

from __future__ import annotations

from adamerge.architecture import FAMILIES, family_of


def depth(layer: str) -> int:
    """Position from the input to the output; the state dict has the projection among the first."""
    part = block(layer)
    return {"input": -1, "output": 10**6}[part] if " " not in part else int(part.split()[1])


def block(layer: str) -> str:
    """The part of the encoder that a layer belongs to."""
    names = family_of(layer)
    if names is not None:
        return f"block {names.block_of(layer)}"
    return "output" if any(names.is_output(layer) for names in FAMILIES) else "input"
