"""Finds implementations by name.

An implementation is a class (called anew, without arguments, for each case), an instance, or a module. It is named by
an entry point of the group `inbackward.implementations`, as `package.module:attribute`, or as `package.module`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GROUP = "inbackward.implementations"

NAMES_OF_CALLS = {
    "apply": ("apply", "apply_optimizer_in_backward", "_apply_optimizer_in_backward"),
    "optimizers": ("optimizers", "get_in_backward_optimizers", "_get_in_backward_optimizers"),
}
"""Names under which an object may offer the two calls that every implementation has."""


class UnusableImplementation(LookupError):
    """No implementation can be driven under the name that was given; the message is one line with the remedy."""


@cache
def known_implementations() -> dict[str, EntryPoint]:
    """Return the implementations that are registered in this environment, by name.

    Looked up once: that reads the metadata of every installed distribution, longer than a case takes.
    """
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find_implementation(name: str) -> Any:
    """Return the object behind `name`.

    Raises:
        UnusableImplementation: nothing is registered under that name, its import fails, or it does not offer the calls
            that every implementation has.
    """
    known = known_implementations()
    entry = known.get(name) or _from_here(name, sorted(known))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of itself while it is imported
            target = entry.load()
    except (Exception, SystemExit) as error:
        raise UnusableImplementation(
            f"implementation {name!r} cannot be imported from {entry.value!r}: {type(error).__name__}: {error}. "
            f"Check the spelling, and that the module can be imported from here"
        ) from error
    if not any(callable(getattr(target, spelling, None)) for spelling in ("attach", *NAMES_OF_CALLS["apply"])):
        raise UnusableImplementation(
            f"implementation {name!r} ({entry.value}) has no `apply`. Give it "
            f"apply(optimizer_class, params, optimizer_kwargs, register_hook=True), or attach(module, assignments), "
            f"and optimizers(module)"
        )
    return target


_distributions_of_packages = cache(packages_distributions)
"""Looked up once, as `known_implementations`."""


@cache
def version_of(name: str) -> str:
    """Return which distribution an implementation is of, and its version: `torch-optimi 0.3.3`; empty: of none.

    An adapter that is not part of what it adapts says whose versions are told: `distribution = "torch-optimi"`.
    """
    target = find_implementation(name)
    told = getattr(target, "distribution", None)
    module = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", type(target).__module__)
    package = module.partition(".")[0]
    # One that is installed editable lists no packages: mostly it is called as its package is.
    distribution = told or next(iter(_distributions_of_packages().get(package, [])), package)
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError as error:
        if not told:
            return ""
        raise UnusableImplementation(
            f"implementation {name!r} says that it is of distribution {told!r}, which is not installed; "
            f"correct its attribute `distribution`, or remove it"
        ) from error


def _from_here(name: str, registered: list[str]) -> EntryPoint:
    """Return an entry point for what can be imported as `python -m` would, from here too.

    Raises:
        UnusableImplementation: there is no such module, or the name is not spelled `module` or `module:attribute`.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module, colon, attribute = name.partition(":")
    spelled = all(part.isidentifier() for part in [*module.split("."), *(attribute.split(".") if colon else [])])
    if not spelled or (not colon and not find_spec(module.partition(".")[0])):
        raise UnusableImplementation(
            f"unknown implementation {name!r}; registered here: {', '.join(registered) or 'none'}. "
            f"Use one of these names, package.module, or package.module:attribute"
        )
    return EntryPoint(name, name, GROUP)
