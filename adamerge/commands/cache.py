"""`cache` lists what is kept on this machine, `cache clear` removes what can be made again."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from adamerge.cache_folder import KINDS, cache_dir
from adamerge.cache_locks import removing
from adamerge.commands.cache_entries import Entry, entries
from adamerge.console import plain_console
from adamerge.errors import ConfigError, RunError
from adamerge.hints import near

_USAGE = """usage: adamerge cache
       adamerge cache clear [kind=<kinds>] [older=<time>] [larger=<size>] [dry=true]

Lists what is kept in {folder} (ADAMERGE_CACHE), or removes the entries that all conditions hold for:
  kind=heads,pixels  of these kinds: {kinds}
  older=30d          not used for that long: h, d or w
  larger=500MB       larger than that, each: kB, MB, GB or TB
  dry=true           say what would be removed, and remove nothing
What is removed is made again by the next run that needs it. The zoo is not: it is removed with kind=zoo only.
An entry that a process writes is left.
"""
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z]+)")


@dataclass(frozen=True)
class Condition:
    """Which entries are meant.

    Args:
        kinds: theirs; None: all that can be made again.
        older: seconds since the last use, at least.
        larger: bytes that each has more than; None: any size.
    """

    kinds: tuple[str, ...] | None = None
    older: float = 0.0
    larger: float | None = None
    dry: bool = False

    def holds_for(self, entry: Entry) -> bool:
        unused = time.time() - entry.used
        return (unused >= self.older or not self.older) and (self.larger is None or entry.size > self.larger)


def run(words: list[str]) -> None:
    """List the cache, or clear it.

    Raises:
        ConfigError: words that are not understood, all at once.
        RunError: the cache is no folder, or something could not be removed.
    """
    cache = cache_dir()
    if {"-h", "--help"} & set(words):
        sys.stdout.write(_USAGE.format(folder=cache, kinds=", ".join(KINDS)))
        return
    if words and words[0] != "clear":
        hint = near(words[0], ["clear"], otherwise="`cache` lists, `cache clear` removes.")
        raise ConfigError(f"cache does not know '{words[0]}'; {hint}")
    condition = _read(words[1:])
    if cache.exists() and not cache.is_dir():
        raise RunError(f"The cache, {cache}, is a file.\n  Set ADAMERGE_CACHE to a folder.")
    if words:
        _clear(cache, condition, plain_console())
    else:
        _list(cache, plain_console())


def _read(words: Sequence[str]) -> Condition:
    given: dict[str, str] = {}
    mistakes = []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in ("kind", "older", "larger", "dry"):
            meant = near(key, ("kind", "older", "larger", "dry"))
            mistakes.append(f"there is no '{key}'; {meant}")
        elif not equals or not value:
            mistakes.append(f"'{key}' has no value; give {key}=<value>.")
        elif key in given:
            mistakes.append(f"{key} is given twice; give it once.")
        else:
            given[key] = value
    kinds = tuple(dict.fromkeys(given["kind"].split(","))) if "kind" in given else None
    for kind in kinds or ():
        if kind not in KINDS:
            mistakes.append(f"kind: there is no kind '{kind}'; {near(kind, KINDS)}")
    older = _amount("older", given.get("older"), _SECONDS, "30d: h, d or w", mistakes)
    larger = _amount("larger", given.get("larger"), _BYTES, "500MB: kB, MB, GB or TB", mistakes)
    if (dry := given.get("dry", "false")) not in ("true", "false"):
        mistakes.append(f"dry={dry}: give true or false.")
    if mistakes:
        raise ConfigError("\n  ".join(("cache clear: nothing was removed.", *mistakes)))
    return Condition(kinds, older or 0.0, larger, dry == "true")


def _amount(
    key: str, text: str | None, units: dict[str, float] | dict[str, int], example: str, mistakes: list[str]
) -> float | None:
    if text is None:
        return None
    match = _AMOUNT.fullmatch(text)
    unit = units.get(match[2].lower()) if match else None
    if match is None or unit is None:
        mistakes.append(f"{key}={text} is not understood; give a number and its unit, such as {example}.")
        return None
    return float(match[1]) * unit


def _list(cache: Path, console: Console) -> None:
    found = {kind: kept for kind in KINDS if (kept := entries(cache, kind))}
    if not found:
        console.print(f"Nothing is kept in {cache} yet.", highlight=False, soft_wrap=True)
        return
    console.print(f"{cache}:", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "entries", "size", "oldest use", "newest use", "what"):
        number = column in ("entries", "size")
        table.add_column(column, justify="right" if number else "left", no_wrap=column != "what")
    for kind, kept in found.items():
        uses = [entry.used for entry in kept]
        table.add_row(kind, str(len(kept)), _size(kept), _day(min(uses)), _day(max(uses)), KINDS[kind].holds)
    everything = [entry for kept in found.values() for entry in kept]
    table.add_row("all", str(len(everything)), _size(everything))
    console.print(table)


def _clear(cache: Path, condition: Condition, console: Console) -> None:
    chosen = condition.kinds or tuple(kind for kind, about in KINDS.items() if about.again)
    failed: list[str] = []
    removed: list[Entry] = []
    verb = "would remove" if condition.dry else "removed"
    for kind in chosen:
        meant, busy, gone = 0, [], []
        alone = KINDS[kind].in_place and not condition.dry and (cache / kind).is_dir()
        with removing(cache / kind) if alone else nullcontext():
            for entry in entries(cache, kind):
                if not condition.holds_for(entry):
                    continue
                meant += 1
                if entry.at_work():
                    busy.append(entry)
                elif condition.dry or _removed(entry, cache / kind, failed):
                    gone.append(entry)
        removed += gone
        if meant:
            left = f"; {_counted(busy)} in use or being written, left" if busy else ""
            _say(console, f"{kind}: {verb} {_counted(gone)}, {_size(gone)}{left}")
    freed = "would be freed" if condition.dry else "freed"
    _say(console, f"{verb.capitalize()} {_counted(removed)}; {_size(removed)} {freed} in {cache}.")
    for kind in () if condition.kinds else (kind for kind, about in KINDS.items() if not about.again):
        if kept := [entry for entry in entries(cache, kind) if condition.holds_for(entry)]:
            _say(
                console,
                f"{kind}: {_counted(kept)}, {_size(kept)}, left: it is removed with kind={kind} only.",
            )
    if failed:
        raise RunError("\n  ".join(("Not everything could be removed.", *failed)))


def _removed(entry: Entry, folder: Path, failed: list[str]) -> bool:
    """Remove its files, and the folders that they leave empty; why not is noted."""
    try:
        for file in entry.files:
            file.path.unlink(missing_ok=True)
    except OSError as error:
        failed.append(f"{error.filename}: {error.strerror}.")
        return False
    for file in entry.files:
        for parent in file.path.parents:
            if folder not in parent.parents:
                break
            with suppress(OSError):  # it holds something else, or is gone
                parent.rmdir()
    return True


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)


def _counted(found: Sequence[Entry]) -> str:
    return f"{len(found)} {'entry' if len(found) == 1 else 'entries'}"


def _size(found: Sequence[Entry]) -> str:
    """Their size together, in decimal units as larger= takes them."""
    size = float(sum(entry.size for entry in found))
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")
