"""Colour scales of heat maps: viridis for one sign, blue to red for two."""

from __future__ import annotations

VIRIDIS = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32", "#fde725")
# ColorBrewer's RdBu, turned round: white is zero.
BLUE_RED = ("#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f")
BINS = 33  # odd, so that zero has a colour of its own


def ramp(stops: tuple[str, ...], count: int = BINS) -> list[str]:
    """`count` colours from the first stop to the last."""
    parsed = [tuple(int(stop[i : i + 2], 16) for i in (1, 3, 5)) for stop in stops]
    found = []
    for step in range(count):
        place = step / (count - 1) * (len(stops) - 1)
        below = min(int(place), len(stops) - 2)
        mixed = [
            round(a + (b - a) * (place - below))
            for a, b in zip(parsed[below], parsed[below + 1], strict=True)
        ]
        found.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return found


def ink(fill: str) -> str:
    """Black or white, whichever can be read on the colour."""
    red, green, blue = (int(fill[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
