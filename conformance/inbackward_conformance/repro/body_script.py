"""The script of a requirement that is no run of a plan: its own body, with its fixtures spelled out."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import warnings
from contextlib import suppress
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapter import Implementation
from inbackward_conformance.printable import expression
from inbackward_conformance.repro import plainly
from inbackward_conformance.repro.file import script
from inbackward_conformance.repro.inline import Inlined, is_plain
from inbackward_conformance.repro.spelling import STATE_OF, Spelling, Unspellable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from inbackward_conformance.repro.failure import Failure

FIXTURES = ("implementation", "check", "name")
"""What is spelled out, and so no longer an argument of anything."""

UNKNOWN_PLAN = "it runs a plan, and its process died before it said which"

OWN_CLASS = re.compile(r"^(Configuration\(optimizer=)?'[\w.]+:\w+'")
"""An optimizer as `package.module:Class`."""

REQUIREMENTS = "inbackward_conformance.requirements"


def body_script(failure: Failure, spelling: Spelling) -> str:
    """Return the script of a failure of a requirement that is plain code."""
    chapter, _, name = failure.requirement.id.partition("/")
    module = _module(chapter)
    inlined = Inlined(plainly, lambda node: _SpellOut(spelling).visit(node))
    arguments = dict(failure.arguments)
    _expect_all(module, f"test_{name}", arguments)
    for value in arguments.values():
        inlined.add_names(module, value)
    body = inlined.function(module, f"test_{name}")
    body.name = name
    if "device" in (argument.arg for argument in body.args.args):
        arguments["device"] = repr(failure.device)
    call = f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})"
    on_ranks = any("spawn" in definition for definition in inlined.definitions)
    tail = f'if __name__ == "__main__":\n    {call}' if on_ranks else call
    if left := {
        node.id
        for node in ast.walk(ast.parse("\n".join([*inlined.definitions, ast.unparse(body)])))
        if isinstance(node, ast.Name)
    } & {*FIXTURES[:2]}:
        raise Unspellable(f"it uses {', '.join(left)} in a way that cannot be spelled out")
    return script(failure, spelling, inlined.imports, [*inlined.definitions, ast.unparse(body), tail])


def _module(chapter: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of marks, which pytest knows where it has collected the requirements
        return importlib.import_module(f"{REQUIREMENTS}.test_{chapter}")


def _expect_all(module: ModuleType, name: str, arguments: Mapping[str, str]) -> None:
    needed = inspect.signature(getattr(module, name)).parameters.keys()
    if "drawn" in needed:
        raise Unspellable(UNKNOWN_PLAN)
    if own := [source for source in arguments.values() if OWN_CLASS.search(source)]:
        raise Unspellable(f"{own[0]} names an optimizer class of the implementation's own")
    if missing := needed - arguments.keys() - {*FIXTURES[:2], "device"}:
        raise Unspellable(f"what {', '.join(sorted(missing))} was has no source, or its process died before it said so")


def source_of(value: Any, module: ModuleType) -> str:
    """Return the source of an argument of a case, as it would be written in `module`.

    Raises:
        Unspellable: it is neither data nor something that has a name there.
    """
    if is_plain(value):
        return expression(value)
    if isinstance(value, tuple):
        return f"({', '.join(source_of(item, module) for item in value)},)"
    if is_dataclass(value) and type(value).__name__ in vars(module):
        return repr(value)
    if name := next((name for name, found in vars(module).items() if found is value), ""):
        return name
    of_torch = inspect.getmodule(value)
    if of_torch and hasattr(value, "__qualname__") and of_torch.__name__.startswith("torch"):
        public = value.__module__.replace("torch.nn.modules.", "torch.nn.").rpartition(".")[0]
        return f"{public}.{value.__qualname__}"
    raise Unspellable(f"{value!r} in {module.__name__} has no name there: give it one")


def sources_of(arguments: Mapping[str, Any], requirement: str) -> dict[str, str]:
    """Return the sources of the arguments of a case; those that have none are left out."""
    module = _module(requirement.partition("/")[0])
    found = {}
    for name, value in arguments.items():
        with suppress(Unspellable):
            found[name] = source_of(value, module)
    return found


class _SpellOut(ast.NodeTransformer):
    """Puts the implementation's own calls in the place of those of an `Implementation`, and drops fixtures."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Drop arguments that are spelled out."""
        self.generic_visit(node)
        node.args.args = [
            argument
            for argument in node.args.args
            if argument.arg not in FIXTURES[:2] and not (argument.arg == "name" and "Rank" in ast.unparse(node.args))
        ]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Drop `implementation = …`."""
        if any(isinstance(target, ast.Name) and target.id in FIXTURES[:2] for target in node.targets):
            return None
        return self.generic_visit(node)

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        """Let errors through."""
        self.generic_visit(node)
        node.items = [item for item in node.items if not ast.unparse(item).startswith("going_through(")]
        return node if node.items else node.body

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Drop what only the record needs, and write out what changes a learning rate."""
        if ast.unparse(node).startswith("check.findings."):
            return ast.Pass()
        match node.value:
            case ast.Call(ast.Attribute(functional, "set_lr"), [lr]):
                groups = self._spelling.spell("param_groups", functional_optimizer=ast.unparse(functional))
                match _expression(groups):
                    case ast.List([one]):
                        return ast.parse(f"{ast.unparse(one)}['lr'] = {ast.unparse(lr)}").body[0]
                return ast.parse(f"for group in {groups}:\n    group['lr'] = {ast.unparse(lr)}").body[0]
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Take a functional optimizer as it is, and write out a call that is handed on."""
        if ast.unparse(node) == "implementation.state_of":
            return _expression(f"lambda optimizer, param: {self._spelling.spell('state_of', **STATE_OF)}")
        self.generic_visit(node)
        return node.value if node.attr == "target" else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Spell a call out."""
        self.generic_visit(node)
        match node.func:
            case ast.Name("check"):
                raise Unspellable(UNKNOWN_PLAN)
            case ast.Attribute(ast.Name("implementation"), call):
                return self._spelled(call, node)
            case ast.Attribute(ast.Name("check"), "rejected"):
                listed = self._spelling.spell("optimizers", module="module")
                lister = ast.parse(f"lambda module: {listed}", mode="eval").body
                return ast.Call(ast.Name("rejected", ast.Load()), [node.args[0], lister, *node.args[1:]], node.keywords)
            case ast.Attribute(functional, "offered"):
                return self._attribute(functional, node.args[0])
            case ast.Attribute(ast.Name("check"), call):
                return ast.Call(ast.Name(call, ast.Load()), node.args, node.keywords)
        node.args = [each for each in node.args if not (isinstance(each, ast.Name) and each.id in FIXTURES[:2])]
        return node

    def _spelled(self, call: str, node: ast.Call) -> ast.AST:
        given = [ast.unparse(argument) for argument in node.args]
        options = ", ".join(ast.unparse(keyword) for keyword in node.keywords)
        if call == "offers":
            if not isinstance(node.args[0], ast.Constant):
                raise Unspellable(f"which call is meant is not written there: {ast.unparse(node)}")
            return ast.Constant(self._spelling.offers(str(node.args[0].value)))
        if call == "attach" and not self._spelling.offers("attach"):
            return self._attached(node)
        names = list(inspect.signature(getattr(Implementation, call)).parameters)[1:]
        arguments = dict(zip(names, given, strict=False))
        if call in {"schedule", "state_dict", "load_state_dict"} and not self._spelling.offers(call):
            return self._over_optimizers(call, options, **arguments)
        return _expression(self._spelling.spell(call, options, **arguments))

    @staticmethod
    def _attribute(functional: ast.expr, name: ast.expr) -> ast.AST:
        if isinstance(name, ast.Constant):
            return ast.Attribute(functional, str(name.value), ast.Load())
        return ast.Call(ast.Name("getattr", ast.Load()), [functional, name], [])

    def _attached(self, node: ast.Call) -> ast.AST:
        match node.args[1]:
            case ast.List([ast.Tuple(values)]):
                names = ("optimizer_class", "params", "optimizer_kwargs", "register_hook")
                given = dict(zip(names, map(ast.unparse, values), strict=True))
                return _expression(self._spelling.spell("apply", **given))
        raise Unspellable(f"an attachment that is not written as a list of one tuple: {ast.unparse(node)}")

    def _over_optimizers(self, call: str, options: str, module: str, **arguments: str) -> ast.AST:
        optimizers = self._spelling.spell("optimizers", module=module)
        match call:
            case "schedule":
                return _expression(f"[{arguments['scheduler_class']}(each, {options}) for each in {optimizers}]")
            case "state_dict":
                return _expression(f"[each.state_dict() for each in {optimizers}]")
        load = f"each.load_state_dict(state) for each, state in zip({optimizers}, {arguments['state']})"
        return _expression(f"[{load}]")


def _expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body
