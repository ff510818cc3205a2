"""Where a layer sits in the encoder, told from its name in the state dict."""

from __future__ import annotations


def depth(layer: str) -> int:
    """Position from the input to the output; the state dict has the projection among the first."""
    part = block(layer)
    return {"input": -1, "output": 10**6}[part] if " " not in part else int(part.split()[1])


def block(layer: str) -> str:
    """The part of the encoder that a layer belongs to."""
    parts = layer.removeprefix("visual.").split(".")
    if parts[:2] == ["transformer", "resblocks"]:
        return f"block {parts[2]}"
    return "output" if parts[0] in ("ln_post", "proj") else "input"
