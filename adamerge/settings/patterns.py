"""Patterns of file names, such as `experts/{task}.safetensors`."""

from __future__ import annotations

from string import Formatter

from adamerge.errors import ConfigError


def fill(pattern: str, option: str, **values: str | int) -> str:
    """The pattern with the values in the place of their names in braces; `{{` and `}}` are braces themselves.

    Raises:
        ConfigError: other braces, named with the option that holds the pattern.
    """
    offered = " and ".join(f"{{{name}}}" for name in values)
    try:
        fields = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
    except ValueError:  # a brace without its other half
        fields = ["..."]
    if foreign := [name for name in fields if name not in values]:
        raise ConfigError(
            f"{option}: {{{foreign[0]}}} in '{pattern}' is not replaced by anything; {offered} "
            f"{'is' if len(values) == 1 else 'are'}.\n"
            "  Braces that belong to a file's or folder's name are written twice: {{ and }}."
        )
    return pattern.format(**values)
