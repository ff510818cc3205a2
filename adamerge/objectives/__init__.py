"""What is minimised on a batch of one task's images: one file per family of losses.

A class is found by its name, `adamerge.objectives.Entropy`; a YAML names its module.
"""

from adamerge.lookup import by_name

__getattr__ = by_name(__name__)
