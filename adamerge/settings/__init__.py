"""Settings: where the config folder is, checking a whole config at once, and making the objects it names."""

from adamerge.settings.check import validate
from adamerge.settings.components import instantiate
from adamerge.settings.identity import Identity, identify
from adamerge.settings.paths import cache_dir, conf_dir, outputs_dir, register_resolvers

__all__ = [
    "cache_dir",
    "conf_dir",
    "instantiate",
    "outputs_dir",
    "register_resolvers",
    "Identity",
    "identify",
    "validate",
]
