"""One line of a diagnosis, and going on whatever a check runs into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from adamerge.errors import AdamergeError

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it (empty where nothing is to be done)."""

    status: Status
    what: str
    text: str
    advice: str = ""


def guarded(
    what: str, check: Callable[[], Iterator[Finding]], config_is_wrong: bool = False
) -> Iterator[Finding]:
    """The findings of a check; where it stops with an error, that is the last of them.

    Args:
        config_is_wrong: the config has mistakes, which are told elsewhere: a failure may come from them.
    """
    try:
        yield from check()
    except AdamergeError as error:
        text, _, advice = str(error).partition("\n")
        yield Finding("problem", what, text, " ".join(advice.split()))
    except Exception as error:  # a diagnosis tells of every failure and goes on
        if config_is_wrong:
            yield Finding("warning", what, "not checked: the config has mistakes", "Mend the config first.")
        else:
            first = (str(error).splitlines() or [""])[0]
            yield Finding("problem", what, f"could not be checked: {type(error).__name__}: {first}")
