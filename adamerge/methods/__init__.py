"""Adaptive merging methods, one per file."""

from adamerge.methods.adamerging import AdaMerging
from adamerge.methods.base import Method
from adamerge.methods.static import Fixed, Static

__all__ = ["AdaMerging", "Fixed", "Method", "Static"]
