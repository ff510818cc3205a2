"""Task vectors, layers, merging coefficients and the functional merge. Knows only torch."""

from adamerge.merging.coefficients import ONE, Coefficients
from adamerge.merging.functional import Merged, merge_tensor, merge_tensors
from adamerge.merging.head import Head
from adamerge.merging.layers import Layer, layer_table
from adamerge.merging.learned import LearnedCoefficients, learned
from adamerge.merging.pool import Pool

__all__ = [
    "ONE",
    "Coefficients",
    "Head",
    "Layer",
    "LearnedCoefficients",
    "Merged",
    "Pool",
    "layer_table",
    "learned",
    "merge_tensor",
    "merge_tensors",
]
