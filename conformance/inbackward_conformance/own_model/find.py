"""Finds what the command line names: the function that builds the model, and the class of the optimizer."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.find import search_current_folder
from inbackward_conformance.raised_error import is_observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer


class NotFound(LookupError):
    """Raised when there is nothing of that name; the message is one line with the remedy."""


def find_build(name: str) -> Callable[[], Any]:
    """Return the function `package.module:function`; the module is found in the current folder too.

    Raises:
        NotFound: there is no such function, or its module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    of_a_file = module_name.endswith(".py")
    if of_a_file or not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        hint = "; name the module, not its file" if of_a_file else ""
        raise NotFound(f"{name!r}: expected a module and a function in it, as my_module:build{hint}")
    module = _import(name, module_name)
    build = getattr(module, attribute, None)
    if build is None:
        raise NotFound(f"{name!r}: {module_name} has no {attribute!r}; its functions: {_functions(module) or 'none'}")
    if not callable(build):
        kind = type(build).__name__
        raise NotFound(f"{name!r} is of type {kind}: expected a function that returns (model, compute_loss)")
    function: Callable[[], Any] = build
    return function


def find_optimizer(name: str) -> type[Optimizer]:
    """Return the class of that name in `torch.optim`, or at `package.module:Class`.

    Raises:
        NotFound: there is no such class, or its module cannot be imported.
    """
    module_name, _, attribute = name.rpartition(":")
    module = _import(name, module_name or "torch.optim")
    found = getattr(module, attribute, None)
    if not callable(found) or inspect.ismodule(found):
        raise NotFound(f"no optimizer class {name!r}: expected one of torch.optim, as AdamW, or package.module:Class")
    optimizer_class: type[Optimizer] = found
    return optimizer_class


def _import(name: str, module_name: str) -> Any:
    search_current_folder()
    try:
        return importlib.import_module(module_name)
    except BaseException as error:
        if not is_observation(error):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise NotFound(f"{name!r}: there is no module {error.name!r}, in {Path.cwd()} or installed") from error
        from inbackward_conformance.own_model.place import described  # noqa: PLC0415 (loads torch)

        raise NotFound(f"{name!r}: importing {module_name} raises {described(error)}") from error


def _functions(module: Any) -> str:
    found = (each for each in vars(module).values() if inspect.isfunction(each) and each.__module__ == module.__name__)
    return ", ".join(each.__name__ for each in found)
