"""The script of a requirement that runs no plan: its own body, with the calls of fixtures replaced."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import warnings
from contextlib import suppress
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro import stand_ins
from inbackward_conformance.repro.bound_optimizers import BoundOptimizers
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.file import script
from inbackward_conformance.repro.inline import Inlined, is_plain
from inbackward_conformance.repro.spell_out import FIXTURES, UNKNOWN_PLAN, SpellOut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.failure import Failure

CUSTOM_CLASS = re.compile(r"^(Configuration\(optimizer=)?'[\w.]+:\w+'")
"""An optimizer as `package.module:Class`."""

STAND_INS = {
    ("inbackward_conformance.outcome", "BrokenPromise"): "AssertionError",
    ("inbackward_conformance.raised_error", "message_of"): "str",
    ("inbackward_conformance.raised_error", "text_of"): "repr",
    ("inbackward_conformance.plan.assignment", "TensorOption"): "torch.tensor",
    ("inbackward_conformance.catalogue.optimizer_configurations", "Configuration"): "configuration",
    ("inbackward_conformance.training.trace", "take_snapshot"): "observed",
    ("inbackward_conformance.training.compare", "difference"): "snapshot_difference",
    ("inbackward_conformance.training.side_by_side", "SideBySide"): "FunctionalAndOrdinary",
    ("inbackward_conformance.values", "tensors_in"): "tensors_in",
}
"""Names of shorter definitions, in `stand_ins` or builtins, that replace these objects in scripts."""

REQUIREMENTS = "inbackward_conformance.requirements"


def body_script(failure: Failure, templates: CallTemplates) -> str:
    """Return the script of a failure of a requirement that runs no plan."""
    chapter, _, name = failure.requirement.id.partition("/")
    module = _module(chapter)
    templates.reserved |= _variables_of(module)
    optimizers = BoundOptimizers(templates)
    spell_out = SpellOut(templates, failure.device).visit
    inlined = Inlined(stand_ins, STAND_INS, spell_out, optimizers.source_of, templates.copied_names)
    arguments = dict(failure.arguments)
    _require_sources(module, f"test_{name}", arguments)
    arguments = {
        name: optimizers.source_of_argument(value, inlined) or inlined.expression(module, value)
        for name, value in arguments.items()
    }
    body = inlined.function(module, f"test_{name}")
    body.name = name
    if "device" in (argument.arg for argument in body.args.args):
        arguments["device"] = repr(failure.device)
    call = f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
    on_ranks = any("start_processes" in definition for definition in inlined.definitions)
    tail = f'if __name__ == "__main__":\n    {call}' if on_ranks else call
    if remaining := {
        node.id
        for node in ast.walk(ast.parse("\n".join([*inlined.definitions, ast.unparse(body)])))
        if isinstance(node, ast.Name)
    } & {*FIXTURES}:
        raise CannotWrite(f"it uses {', '.join(remaining)} in a way that has no source")
    return script(failure, templates, inlined.imports, [*inlined.definitions, ast.unparse(body), tail])


def _module(chapter: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about marks, which pytest registers only when it collects the requirements
        return importlib.import_module(f"{REQUIREMENTS}.test_{chapter}")


def _variables_of(module: ModuleType) -> set[str]:
    """Return the names of the variables and parameters of all functions of a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.arg(name) | ast.Name(name, ast.Store()):
                names.add(name)
    return names


def _require_sources(module: ModuleType, name: str, arguments: Mapping[str, str]) -> None:
    parameters = inspect.signature(getattr(module, name)).parameters.keys()
    if "drawn" in parameters:
        raise CannotWrite(UNKNOWN_PLAN)
    if custom := [source for source in arguments.values() if CUSTOM_CLASS.search(source)]:
        raise CannotWrite(f"{custom[0]} names an optimizer class of the implementation's own")
    if missing := parameters - arguments.keys() - {*FIXTURES, "device"}:
        raise CannotWrite(f"what {', '.join(sorted(missing))} was has no source, or its process died before it said so")


def source_of(value: Any, module: ModuleType) -> str:
    """Return the source of an argument of a case, as an expression in `module`.

    Raises:
        CannotWrite: `value` is neither data nor an object with a name in `module` or torch.
    """
    if is_plain(value):
        return expression(value)
    if isinstance(value, tuple):
        return f"({', '.join(source_of(item, module) for item in value)},)"
    if is_dataclass(value) and type(value).__name__ in vars(module):
        return repr(value)
    if name := next((name for name, member in vars(module).items() if member is value), ""):
        return name
    home = inspect.getmodule(value)
    if home and hasattr(value, "__qualname__") and home.__name__.startswith("torch"):
        public = value.__module__.replace("torch.nn.modules.", "torch.nn.").rpartition(".")[0]
        return f"{public}.{value.__qualname__}"
    raise CannotWrite(f"{value!r} in {module.__name__} has no name there: give it one")


def sources_of(arguments: Mapping[str, Any], requirement: str) -> dict[str, str]:
    """Return the sources of the arguments of a case, without those that have none."""
    module = _module(requirement.partition("/")[0])
    sources = {}
    for name, value in arguments.items():
        with suppress(CannotWrite):
            sources[name] = source_of(value, module)
    return sources
