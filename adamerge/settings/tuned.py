"""What a suite offers to single methods (`suite.tuned.<method>.<option>`), against what the methods' YAMLs read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adamerge.hints import near
from adamerge.settings.groups import choices
from adamerge.settings.mistakes import Mistakes

_READ = re.compile(r"suite\.tuned\.(\w+)\.(\w+)")


def read_by_methods() -> dict[str, set[str]]:
    """{method: options} that the YAMLs that ship look up in a suite."""
    found: dict[str, set[str]] = {}
    for path in choices("method").values():
        for method, option in _READ.findall(path.read_text(encoding="utf-8")):
            found.setdefault(method, set()).add(option)
    return found


def check_tuned(tuned: Any, mistakes: Mistakes) -> None:
    """Note options that no method reads: the suite's author believes that they do something.

    A method that does not ship with adamerge may read what it likes under its own name.
    """
    known, shipped = read_by_methods(), choices("method")
    for method, options in tuned.items() if isinstance(tuned, Mapping) else ():
        if method in shipped or near(str(method), shipped, otherwise="") != "":
            for option in options if isinstance(options, Mapping) else ():
                if option not in known.get(method, ()):
                    where = f"suite.tuned.{method}.{option}"
                    offered = [
                        f"{name}.{key}" for name, keys in sorted(known.items()) for key in sorted(keys)
                    ]
                    mistakes.add(where, f"no method reads it; {near(f'{method}.{option}', offered)}")
