"""Objects named by `_target_`: an allow-list, their options checked against the signature, plain values passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeAdapter, ValidationError

from adamerge.errors import ConfigError
from adamerge.settings.mistakes import Mistakes, near

ALLOWED = ("adamerge.", "torch.optim.", "pytorch_lightning.loggers.", "pytorch_lightning.callbacks.")
_RESERVED = ("_target_", "_partial_")


def instantiate(node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Make the object that `node` describes, with `args` and `kwargs` before and beside its own options.

    Options arrive as plain Python values: no config object ever enters a class.

    Raises:
        ConfigError: a target outside the allow-list or one that does not exist.
    """
    options = {key: _build(value) for key, value in _plain(node).items() if key not in _RESERVED}
    target = find_target(str(node["_target_"]))
    if node.get("_partial_"):
        return partial(target, *args, **options, **kwargs)
    return target(*args, **options, **kwargs)


def _build(value: Any) -> Any:
    return instantiate(value) if isinstance(value, Mapping) and "_target_" in value else value


def _plain(node: Any) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf

    container = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return dict(container)  # type: ignore[arg-type]


def find_target(path: str) -> Callable[..., Any]:
    """Import the class or function at a dotted path of the allow-list."""
    if not path.startswith(ALLOWED):
        raise ConfigError(f"_target_ {path} is not allowed; targets start with {', '.join(ALLOWED)}")
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"_target_ {path} does not exist ({error}).") from error
    if not callable(found) or inspect.ismodule(found):
        raise ConfigError(f"_target_ {path} is no class or function.")
    return found  # type: ignore[no-any-return]


def check_component(where: str, node: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note unknown, missing and mistyped options of the component at `where`."""
    try:
        target = find_target(str(node["_target_"]))
    except ConfigError as error:
        mistakes.add(f"{where}._target_", str(error))
        return
    name = getattr(target, "__name__", str(target))
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    options = {key: value for key, value in node.items() if key not in _RESERVED}
    known = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = _hints(target)
    for key, value in options.items():
        if isinstance(value, Mapping) and "_target_" in value:
            check_component(f"{where}.{key}", value, mistakes)
        elif key not in known and not open_ended:
            offered = [k for k in known if k not in ("pool", "params")]
            guess = near(key, offered)
            hint = guess if guess.startswith("did") else f"it has {', '.join(offered) or 'none'}."
            mistakes.add(f"{where}.{key}", f"{name} has no such option; {hint}")
        elif key in hints:
            _check_type(f"{where}.{key}", value, hints[key], mistakes)


def check_value_errors(where: str, node: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Make a component that needs nothing else, for the ranges that its constructor checks."""
    try:
        instantiate(node)
    except (ValueError, ConfigError) as error:
        mistakes.add(where, str(error))


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    try:
        return get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _check_type(where: str, value: Any, annotation: Any, mistakes: Mistakes) -> None:
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeError):
        try:
            adapter = TypeAdapter(annotation)
        except Exception:  # an annotation that pydantic cannot check is left to the class itself
            return
    try:
        adapter.validate_python(value, strict=False)
    except ValidationError as error:
        reasons = {e["msg"] for e in error.errors() if e["type"] != "is_instance_of"} or {"wrong type"}
        mistakes.add(where, f"{'; or '.join(sorted(reasons))} (got {value!r}).")
