"""What the tensors of an image encoder say of its sizes, under the names that it is kept with."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adamerge.architecture import OPEN_CLIP, kept_names


def feature_width(encoder: Mapping[str, Tensor]) -> int | None:
    """Entries of a feature; None for a CLIP whose projection is missing, as Hugging Face's CLIPVisionModel's is."""
    names = kept_names(encoder)
    if names is None or names.projection:
        projection = encoder.get(OPEN_CLIP.projection)
        return None if projection is None else projection.shape[-1]
    return next((encoder[key].shape[0] for key in names.ends if key in encoder), None)
