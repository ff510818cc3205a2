"""Collecting every mistake before reporting any, with the near names."""

from __future__ import annotations

from adamerge.errors import ConfigError


class Mistakes:
    """The mistakes found in a config, each with the place it stands at."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.places: set[str] = set()

    def add(self, where: str, what: str) -> None:
        line = f"{where}: {what}"
        self.places.add(where)
        if line not in self.lines:
            self.lines.append(line)

    def report(self) -> None:
        """Raise one ConfigError that names them all, if there are any."""
        if self.lines:
            count = len(self.lines)
            head = f"{count} mistake{'s' if count > 1 else ''} in the config, nothing was started."
            lines = (line.replace("\n", "\n    ") for line in self.lines)
            raise ConfigError("\n".join([head, *(f"  {line}" for line in lines)]))
