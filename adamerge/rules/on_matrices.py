"""What the spectral rules share: a matrix in, as it stands in the file or cut into q, k and v; all else averaged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from adamerge.merging.matrices import Fused, by_matrix, is_matrix
from adamerge.merging.precision import wide
from adamerge.rules.rule import Rule


@dataclass(frozen=True)
class OnMatrices(Rule):
    """A rule for matrices. All other tensors (gains, biases, the class token, the convolution) take the mean over the
    tasks, as the authors of these rules have it, and `scale` multiplies both.

    Every tensor of two dimensions is a matrix, the embedding of positions and the projection among them, but for a
    "text_projection". It is worked on in float32 at least and alone: no other tensor is in memory for it.

    Args:
        scale: what the merge is multiplied with. It lies in the vectors, whose coefficient is 1, so that coefficients
            between 0 and 1 can be learned on them.
        fused: whether query, key and value projections are one matrix, "together", as they stand in open_clip's files,
            or three, "apart", as in Hugging Face's.
    """

    own_start = True

    scale: float = 1.0
    fused: Fused = "together"

    def of_matrices(self, matrices: Tensor) -> Tensor:
        """(T, rows, columns) task vectors of one matrix, of which some entry is not zero -> (T or 1, rows, columns)."""
        raise NotImplementedError

    def of_others(self, stack: Tensor) -> Tensor:
        """(T, *shape) task vectors of a tensor that is no matrix -> (T or 1, *shape), which sum to their mean."""
        return stack.mean(dim=0, keepdim=True) if self.gives == "delta" else stack / len(stack)

    def takes(self, key: str, base: Tensor) -> bool:
        """Whether a tensor is a matrix to this rule."""
        return is_matrix(base) and "text_projection" not in key

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        if self.takes(key, base):
            found = by_matrix(key, wide(stack), self._changed, self.fused)
        else:
            found = self.of_others(wide(stack))
        return (self.scale * found).to(stack.dtype)

    def _changed(self, matrices: Tensor) -> Tensor:
        if not matrices.any():
            return matrices[:1] if self.gives == "delta" else matrices
        return self.of_matrices(matrices)
