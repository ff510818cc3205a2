"""How a picture is brought to an encoder's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Resize = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Fit:
    """Resized, then cropped at the centre to size x size pixels. By default as OpenAI's CLIP does.

    Attributes:
        size: side of the result in pixels.
        resize: "shortest": the shorter side becomes `to` pixels; "squash": both do, whatever the shape.
        to: pixels; None: `size`, so that nothing is cropped off the shorter side.
        interpolation: of the resizing, with antialiasing.
    """

    size: int
    resize: Resize = "shortest"
    to: int | None = None
    interpolation: Interpolation = "bicubic"

    @classmethod
    def of(cls, given: Fit | int) -> Fit:
        """A number stands for CLIP's way to that many pixels."""
        return cls(given) if isinstance(given, int) else given

    def rules(self) -> dict[str, Any]:
        """All but the size, as options."""
        return {"resize": self.resize, "to": self.to, "interpolation": self.interpolation}

    def __str__(self) -> str:
        """The size alone where the rest is CLIP's: what names kept pixels."""
        if self == Fit(self.size):
            return str(self.size)
        return f"{self.size} of {self.to or self.size} {self.resize} {self.interpolation}"
