"""Adaptive merging methods, one per file: the model, and the loop that trains it where it has one of its own.

A class is found by its name, `adamerge.methods.AdaMerging`; a YAML names its module.
"""

from adamerge.lookup import by_name

__getattr__ = by_name(__name__)
