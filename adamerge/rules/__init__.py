"""Static merging rules, one file each: task vectors in, tensor by tensor, task vectors or one delta out.

A class is found by its name, `adamerge.rules.Ties`; a YAML in conf/rule names its module.
"""

from adamerge.lookup import by_name

__getattr__ = by_name(__name__)
