"""Whether an expert comes from the base: how far fine-tuning has moved it, and in which direction the two lie.

Fine-tuning moves the weight matrices by a small part of their norm: the experts of the embedded suite lie at a distance
of 0.10 to 0.14 of the base's norm with a cosine of 0.99. Two networks that were trained apart have a cosine of about 0
and a distance of about 1.4 (measured: 0.00 and 1.3 to 1.5), whatever they were trained on. Only matrices are compared:
the scales of the layer norms are near 1 in every network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.linalg import vector_norm

# Generous: far beyond any fine-tuning, far from any unrelated network.
_LEAST_COSINE = 0.5
_MOST_DISTANCE = 1.0


@dataclass(frozen=True)
class Kinship:
    """Of the weight matrices of an expert theta and its base theta_0.

    Attributes:
        distance: |theta - theta_0| / |theta_0|.
        cosine: of the angle between theta and theta_0.
    """

    distance: float
    cosine: float

    @property
    def doubt(self) -> str | None:
        """Why the expert does not look fine-tuned from the base; None where it does, or where nothing can be told."""
        if not (self.cosine < _LEAST_COSINE or self.distance > _MOST_DISTANCE):
            return None
        return (
            f"its weights lie at a distance of {self.distance:.2f} of the base's norm, with a cosine of "
            f"{round(self.cosine, 2) + 0.0:.2f} to it; fine-tuning leaves about 0.01 to 0.3 and more than 0.9. "
            "It looks fine-tuned from another base"
        )


ADVICE = "Give the base that the experts were fine-tuned from; merged over another one they are noise."


def kinship(base: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> Kinship:
    """Compare the tensors of two or more dimensions that both have (where one is all zeros, nothing can be told)."""
    sums = Sums()
    for key, origin in base.items():
        if key in expert:
            sums.add(origin, expert[key])
    return sums.kinship


@dataclass
class Sums:
    """What a comparison adds up, tensor by tensor: |theta_0|^2, |theta|^2, <theta, theta_0>, |theta - theta_0|^2."""

    squared: float = 0.0
    other: float = 0.0
    product: float = 0.0
    moved: float = 0.0

    def add(self, base: Tensor, expert: Tensor) -> None:
        """One tensor of the base and the expert's; it counts where it has two or more dimensions."""
        if base.ndim < 2:
            return
        theta, theta0 = expert.reshape(-1).float(), base.reshape(-1).float()
        difference = theta - theta0
        # A norm takes an eighth of a scalar product's time here.
        squared, other, moved = (float(vector_norm(x)) ** 2 for x in (theta0, theta, difference))
        self.squared += squared
        self.other += other
        self.product += (squared + other - moved) / 2
        self.moved += moved

    @property
    def kinship(self) -> Kinship:
        if not self.squared or not self.other:
            return Kinship(float("nan"), float("nan"))
        return Kinship((self.moved / self.squared) ** 0.5, self.product / (self.squared * self.other) ** 0.5)
