"""Replaces the calls of the suite's fixtures in a requirement by calls of an implementation."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.repro.call_templates import STATE_OF_ARGUMENTS
from inbackward_conformance.repro.failure import CannotWrite

if TYPE_CHECKING:
    from inbackward_conformance.repro.call_templates import CallTemplates

FIXTURES = ("implementation", "check")
"""Fixtures whose calls are replaced; no function in a script has them as a parameter."""

UNKNOWN_PLAN = "it runs a plan, and its process died before it said which"


class SpellOut(ast.NodeTransformer):
    """Replaces calls of an `Implementation` by the implementation's own, and removes fixtures."""

    def __init__(self, templates: CallTemplates, device: str = "cpu") -> None:
        self._templates = templates
        self._device = device

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Remove parameters for fixtures."""
        self.generic_visit(node)
        node.args.args = [
            argument
            for argument in node.args.args
            if argument.arg not in FIXTURES and not (argument.arg == "name" and "Rank" in ast.unparse(node.args))
        ]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Remove `implementation = …`."""
        if any(isinstance(target, ast.Name) and target.id in FIXTURES for target in node.targets):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Remove what is said to an implementation with optimizer classes of its own: that it is not offered."""
        if "implementation.declared.own_optimizers" in ast.unparse(node.test):
            return None
        return self.generic_visit(node)

    def visit_With(self, node: ast.With) -> ast.AST | list[ast.stmt]:
        """Remove `with must_not_raise(…):`, but not its body."""
        self.generic_visit(node)
        node.items = [item for item in node.items if not ast.unparse(item).startswith("must_not_raise(")]
        return node if node.items else node.body

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Remove additions to `check.findings` and a `bind` without effect, and replace `set_lr`."""
        if ast.unparse(node).startswith(("check.findings.", "bind(")):
            return ast.Pass()
        match node.value:
            case ast.Call(ast.Attribute(functional, "set_lr"), [lr]):
                groups = self._templates.write("param_groups", functional_optimizer=ast.unparse(functional))
                match _expression(groups):
                    case ast.List([one]):
                        return ast.parse(f"{ast.unparse(one)}['lr'] = {ast.unparse(lr)}").body[0]
                return ast.parse(f"for group in {groups}:\n    group['lr'] = {ast.unparse(lr)}").body[0]
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Replace `implementation.state_of` and the declared rounding; remove `.target` of a functional optimizer."""
        if ast.unparse(node) == "implementation.declared.rounding.size":
            return ast.Constant(self._templates.declared.rounding.size)
        if ast.unparse(node) == "implementation.state_of":
            return _expression(f"lambda optimizer, param: {self._templates.write('state_of', **STATE_OF_ARGUMENTS)}")
        self.generic_visit(node)
        return node.value if node.attr == "target" else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace a call of a fixture, and remove fixtures from arguments."""
        self.generic_visit(node)
        match node.func:
            case ast.Name("check"):
                raise CannotWrite(UNKNOWN_PLAN)
            case ast.Name("bind"):  # an assignment is written as what it is bound to
                return node.args[1]
            case ast.Attribute(ast.Name("implementation"), call):
                return self._implementation_call(call, node)
            case ast.Attribute(ast.Name("check"), "rejected"):
                lister = _expression(f"lambda module: {self._templates.write('optimizers', module='module')}")
                return ast.Call(ast.Name("rejected", ast.Load()), [node.args[0], lister, *node.args[1:]], node.keywords)
            case ast.Name("SimpleNamespace"):
                for keyword in node.keywords:
                    if keyword.arg == "device":  # of a rank
                        keyword.value = ast.Constant(self._device)
            case ast.Attribute(functional, "offered"):
                return self._attribute(functional, node.args[0])
            case ast.Attribute(ast.Name("check"), call):
                keywords = [keyword for keyword in node.keywords if keyword.arg != "fixed"]  # a script is not scaled
                return ast.Call(ast.Name(call, ast.Load()), node.args, keywords)
        node.args = [arg for arg in node.args if not (isinstance(arg, ast.Name) and arg.id in FIXTURES)]
        return node

    def _implementation_call(self, call: str, node: ast.Call) -> ast.AST:
        values = [ast.unparse(argument) for argument in node.args]
        options = ", ".join(ast.unparse(keyword) for keyword in node.keywords)
        if call == "offers":
            if not isinstance(node.args[0], ast.Constant):
                raise CannotWrite(f"which call is meant is not written there: {ast.unparse(node)}")
            return ast.Constant(self._templates.offers(str(node.args[0].value)))
        if call == "attach" and not self._templates.offers("attach"):
            return self._attach_call(node)
        names = list(inspect.signature(getattr(Implementation, call)).parameters)[1:]
        arguments = dict(zip(names, values, strict=False))
        if call in {"schedule", "state_dict", "load_state_dict"} and not self._templates.offers(call):
            return self._over_optimizers(call, options, **arguments)
        return _expression(self._templates.write(call, options, **arguments))

    @staticmethod
    def _attribute(functional: ast.expr, name: ast.expr) -> ast.AST:
        if isinstance(name, ast.Constant):
            return ast.Attribute(functional, str(name.value), ast.Load())
        return ast.Call(ast.Name("getattr", ast.Load()), [functional, name], [])

    def _attach_call(self, node: ast.Call) -> ast.AST:
        match node.args[1]:
            case ast.List([ast.Tuple(values)]):
                names = ("optimizer_class", "params", "optimizer_kwargs", "register_hook")
                arguments = dict(zip(names, map(ast.unparse, values), strict=True))
                return _expression(self._templates.write("apply", **arguments))
        raise CannotWrite(f"an attachment that is not written as a list of one tuple: {ast.unparse(node)}")

    def _over_optimizers(self, call: str, options: str, module: str, **arguments: str) -> ast.AST:
        optimizers = self._templates.write("optimizers", module=module)
        match call:
            case "schedule":
                return _expression(f"[{arguments['scheduler_class']}(each, {options}) for each in {optimizers}]")
            case "state_dict":
                return _expression(f"[each.state_dict() for each in {optimizers}]")
        pairs = f"zip({optimizers}, {arguments['state']}, strict=True)"
        return _expression(f"[each.load_state_dict(state) for each, state in {pairs}]")


def _expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body
