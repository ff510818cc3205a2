"""Objects named by `_target_`: an allow-list, options checked against the signature, plain values passed."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from adamerge.errors import ConfigError
from adamerge.hints import near
from adamerge.settings.annotations import Unknown, simple_annotation, type_problem
from adamerge.settings.mistakes import Mistakes
from adamerge.settings.paths import OWN, own_folder, own_modules

ALLOWED = ("adamerge.", "torch.optim.", "pytorch_lightning.loggers.", "pytorch_lightning.callbacks.")
_OWN = "ADAMERGE_MODULES"
_FROM_PROGRAM = ("save_dir",)  # the run folder, for loggers
_OPTIMIZERS = "torch.optim."
_RESERVED = ("_target_", "_partial_")


def instantiate(node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Make the object that `node` describes, with `args` and `kwargs` before and beside its own options.

    Options arrive as plain Python values: no config object ever enters a class. With `_partial_: true` the
    result is a functools.partial that makes the object later.

    Raises:
        ConfigError: a target outside the allow-list or one that does not exist.
    """
    target, options = described(node)
    if node.get("_partial_"):
        return partial(target, *args, **{**options, **kwargs})
    return target(*args, **{**options, **kwargs})


def described(node: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The class or function that `node` names, and its options.

    Raises:
        ConfigError: as for `instantiate`.
    """
    options = {key: _build(value) for key, value in node.items() if key not in _RESERVED}
    return find_target(str(node["_target_"])), options


def _build(value: Any) -> Any:
    """A component is made, also within a group of them; anything else stays."""
    if not isinstance(value, Mapping):
        return value
    return instantiate(value) if "_target_" in value else {key: _build(v) for key, v in value.items()}


def allowed() -> tuple[str, ...]:
    """How a target may begin: a config from elsewhere must not name any code, but the user may name modules."""
    own = [name.strip() for name in os.environ.get(_OWN, "").split(",")]
    return (*ALLOWED, *(f"{name}." for name in (*own, *own_modules()) if name))


def make_own_importable() -> None:
    """Let modules of conf.d be imported, behind everything that is installed: they take no library's place."""
    folder = own_folder()
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))


def find_target(path: str) -> Callable[..., Any]:
    """Import the class or function at a dotted path of the allow-list.

    What a module of the allow-list merely imports from elsewhere (os, importlib, ...) is refused: a config
    must not reach code that was not meant to be configured.

    Raises:
        ConfigError: not on the allow-list, or not there.
    """
    if not path.startswith(allowed()):
        raise ConfigError(
            f"{path} is not allowed; a _target_ starts with {', '.join(allowed())}\n"
            f"  A module of your own is allowed where it lies in {OWN} of the working directory, or with the "
            f"environment variable {_OWN}=<module>[,<module>]."
        )
    make_own_importable()
    where, _, name = path.rpartition(".")
    try:
        module = import_module(where)
    except ImportError as error:
        raise ConfigError(f"{path} does not exist ({error}).") from error
    found: Any = getattr(module, name, None)
    offered = [n for n, value in vars(module).items() if _is_component(value)]
    if not _is_component(found):
        raise ConfigError(f"{where} has no component '{name}'; {near(name, offered)}")
    return found  # type: ignore[no-any-return]


def _is_component(value: Any) -> bool:
    is_code = inspect.isclass(value) or inspect.isfunction(value)
    return is_code and f"{value.__module__}.".startswith((*allowed(), "pytorch_lightning."))


@dataclass(frozen=True)
class _Option:
    """A parameter of a component. What no YAML could give (a pool, parameters) the program gives."""

    annotation: Any
    required: bool
    from_program: bool


def _options(target: Callable[..., Any]) -> tuple[dict[str, _Option], bool]:
    """The parameters by name, and whether any other name is taken as well.

    A class that hands `**options` on to its base takes the base's options too.
    """
    options: dict[str, _Option] = {}
    for function in _constructors(target) if inspect.isclass(target) else [target]:
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        parameters = inspect.signature(function).parameters.values()
        for p in parameters:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self":
                annotation = simple_annotation(p.annotation, scope)
                required = p.default is p.empty
                given = required and (annotation in (Unknown, type(None)) or p.name in _FROM_PROGRAM)
                own = _Option(annotation, required, given)
                options.setdefault(p.name, own)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return options, False
    return options, True


def _constructors(target: type) -> list[Callable[..., Any]]:
    """Each class's own `__init__`, from the target up to where it comes from elsewhere."""
    own = [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c) and c is not object]
    return own or [lambda: None]


def check_component(where: str, node: Mapping[str, Any], mistakes: Mistakes, tried: bool = False) -> None:
    """Note unknown, missing and mistyped options of the component at `where`.

    Args:
        tried: it is cheap to make and needs nothing but its options: made once, for the ranges that it checks.
    """
    path = str(node["_target_"])
    try:
        target = find_target(path)
    except ConfigError as error:
        mistakes.add(f"{where}._target_", str(error))
        return
    before = len(mistakes.lines)
    known, open_ended = _options(target)
    offered = [name for name, option in known.items() if not option.from_program]
    for key, value in node.items():
        at = f"{where}.{key}"
        if key in _RESERVED or at in mistakes.places:
            continue
        if key not in known and not open_ended:
            guess = near(str(key), offered, otherwise="it has {}.")
            mistakes.add(at, f"{target.__name__} has no such option; {guess}")
        elif isinstance(value, Mapping) and "_target_" in value:
            check_component(at, value, mistakes)
        elif isinstance(value, Mapping) and (parts := _components_in(value)):
            for name, part in parts.items():
                check_component(f"{at}.{name}", part, mistakes, tried)
        elif key in known and (problem := type_problem(value, known[key].annotation)):
            mistakes.add(at, problem)
    if path.startswith("adamerge.") and not node.get("_partial_"):  # of others, the program gives some
        for key in [name for name in offered if known[name].required and name not in node]:
            mistakes.add(f"{where}.{key}", f"{target.__name__} needs it; give {where}.{key}=...")
    if tried and len(mistakes.lines) == before:
        _try(where, node, known, mistakes)
    if path.startswith(_OPTIMIZERS) and node.get("_partial_") and len(mistakes.lines) == before:
        _try_optimizer(where, node, mistakes)


def _components_in(group: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The components of a group of them, such as the terms of a sum."""
    return {name: v for name, v in group.items() if isinstance(v, Mapping) and "_target_" in v}


def _try_optimizer(where: str, node: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Make the optimiser of one number, for the ranges that its constructor checks."""
    from torch import nn, zeros

    try:
        instantiate(node)([nn.Parameter(zeros(1))])
    except (ValueError, TypeError) as error:
        mistakes.add(where, f"{error}.")


def _try(where: str, node: Mapping[str, Any], known: Mapping[str, _Option], mistakes: Mistakes) -> None:
    """Make the component for the ranges that its constructor checks."""
    if any(option.from_program for option in known.values()):
        return
    try:
        instantiate(node)
    except ValueError as error:
        mistakes.add(where, f"{error}.")
