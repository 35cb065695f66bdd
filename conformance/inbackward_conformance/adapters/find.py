"""Finds implementations by name.

An implementation is a module, an instance, or a class, which is instantiated without arguments for each case. Its name
is that of an entry point in the group `inbackward.implementations`, `package.module:attribute`, or `package.module`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.raised_error import is_observation, text_of

GROUP = "inbackward.implementations"

CALL_NAMES = {
    "apply": ("apply", "apply_optimizer_in_backward", "_apply_optimizer_in_backward"),
    "optimizers": ("optimizers", "get_in_backward_optimizers", "_get_in_backward_optimizers"),
}
"""Names that an implementation may have for each of the two required calls."""


COPIED = "source"
"""The `spelling` of a module of functions, executed anew for each case, whose source scripts have copies of."""


class UnusableImplementation(LookupError):
    """The name is not that of a usable implementation; the message is one line, with the remedy."""


@cache
def known_implementations() -> dict[str, EntryPoint]:
    """Return the entry points of the implementations that are registered in this environment, by name.

    Cached, since reading the metadata of every installed distribution takes longer than a case.
    """
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find_implementation(name: str) -> Any:
    """Return the implementation of that name.

    Raises:
        UnusableImplementation: there is no such implementation, its import fails, or it lacks a required call.
    """
    known = known_implementations()
    entry = known.get(name) or _importable(name, sorted(known))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's own, during its import
            target = entry.load()
    except BaseException as error:
        if not is_observation(error):
            raise
        raise UnusableImplementation(
            f"implementation {name!r} cannot be imported from {entry.value!r}: {text_of(error)}. "
            f"Check the spelling, and that the module can be imported from here"
        ) from error
    require_usable(target, f"implementation {name!r} ({entry.value})")
    return target


def for_one_case(target: Any) -> Any:
    """Return the implementation for one case: an instance of a class, another copy of a module that may be copied."""
    if inspect.isclass(target):
        return target()
    if inspect.ismodule(target) and getattr(target, "spelling", "") == COPIED and (spec := target.__spec__):
        copied = module_from_spec(spec)
        if spec.loader:
            spec.loader.exec_module(copied)
        return copied
    return target


def require_usable(target: Any, what: str) -> None:
    """Require that an implementation has a call to attach with, and declarations that can be used.

    Raises:
        UnusableImplementation: it lacks the call, or a declaration cannot be used. `what` describes it.
    """
    if not any(callable(getattr(target, call, None)) for call in ("attach", *CALL_NAMES["apply"])):
        raise UnusableImplementation(
            f"{what} has no `apply`. Give it "
            f"apply(optimizer_class, params, optimizer_kwargs, register_hook=True), or attach(module, assignments), "
            f"and optimizers(module)"
        )
    try:
        Declarations.of(target)
    except ValueError as error:
        raise UnusableImplementation(f"{what}: {error}") from error


def search_current_folder() -> None:
    """Have modules found in the current folder too, as with `python -m`."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


_distributions_of_packages = cache(packages_distributions)
"""Cached for the same reason as `known_implementations`."""


@cache
def version_of(name: str) -> str:
    """Return the distribution of an implementation and its version, as in `torch-optimi 0.3.3`; empty if it has none.

    The attribute `distribution` of an adapter names the distribution that it adapts.
    """
    target = find_implementation(name)
    declared = getattr(target, "distribution", None)
    module = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", type(target).__module__)
    package = module.partition(".")[0]
    # An editable install lists no packages; its distribution mostly has the name of the package.
    distribution = declared or next(iter(_distributions_of_packages().get(package, [])), package)
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError as error:
        if not declared:
            return ""
        raise UnusableImplementation(
            f"implementation {name!r} says that it is of distribution {declared!r}, which is not installed; "
            f"correct its attribute `distribution`, or remove it"
        ) from error


def _importable(name: str, registered: list[str]) -> EntryPoint:
    """Return an entry point for a name that can be imported, from the current folder too.

    Raises:
        UnusableImplementation: there is no such module, or the name is neither `module` nor `module:attribute`.
    """
    search_current_folder()
    module, colon, attribute = name.partition(":")
    valid = all(part.isidentifier() for part in [*module.split("."), *(attribute.split(".") if colon else [])])
    if not valid or (not colon and not find_spec(module.partition(".")[0])):
        raise UnusableImplementation(
            f"unknown implementation {name!r}; registered here: {', '.join(registered) or 'none'}. "
            f"Use one of these names, package.module, or package.module:attribute"
        )
    return EntryPoint(name, name, GROUP)
