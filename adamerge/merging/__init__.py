"""Task vectors, layers, merging coefficients and the functional merge. Knows only torch."""

from adamerge.merging.coefficients import Coefficients
from adamerge.merging.functional import Merged, merge_tensor, merge_tensors
from adamerge.merging.head import Head
from adamerge.merging.layers import Layer, layer_table
from adamerge.merging.pool import Pool

__all__ = ["Coefficients", "Head", "Layer", "Merged", "Pool", "layer_table", "merge_tensor", "merge_tensors"]
