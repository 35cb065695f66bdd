"""Works out beforehand what a script can only compute in one way: parameters that are the same in every call.

A requirement is written for all its cases, and a script is of one: what the others need goes.
"""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CALLED_BY_TORCH = {"forward", "backward", "step"}

Function = ast.FunctionDef

Reference = type[ast.Name] | type[ast.Attribute]
"""How something is called: a function by its name, a method as an attribute."""


def specialize(tree: ast.Module) -> bool:
    """Put constants in the place of parameters that are the same in every call; return whether there were any."""
    functions = list(_functions(tree))
    for name, function, kind in functions:
        if [other for other, _, _ in functions].count(name) > 1 or name in CALLED_BY_TORCH:
            continue
        calls = calls_of(tree, name, kind)
        for parameter in _parameters(function):
            if (value := _same_in_all(function, parameter, calls)) is not None:
                _substitute(function, parameter, value)
                for call in calls:
                    _drop(function, parameter, call)
                _drop_parameter(function, parameter)
                tree.body = [*map(_Folded().visit, tree.body)]
                return True
    return False


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function, Reference]]:
    """Yield functions with the name that they are called by, and how; a constructor has that of its class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node, ast.Name
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    constructs = method.name == "__init__"
                    yield (node.name, method, ast.Name) if constructs else (method.name, method, ast.Attribute)


def calls_of(tree: ast.Module, name: str, kind: Reference = ast.Name) -> list[ast.Call]:
    """Return the calls of a function; none at all where it is also used in another way."""
    uses = [node for node in ast.walk(tree) if isinstance(node, kind) and _name(node) == name]
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and any(node.func is found for found in uses)
    ]
    return calls if len(uses) == len(calls) else []


def _name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _positional(function: Function) -> list[str]:
    names = [argument.arg for argument in function.args.args]
    return names[1:] if names[:1] == ["self"] else names


def _parameters(function: Function) -> list[str]:
    if function.args.vararg or function.args.kwarg or function.decorator_list:
        return []
    stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names = [*_positional(function), *(argument.arg for argument in function.args.kwonlyargs)]
    return [name for name in names if name not in stored and not _shadowed(function, name)]


def _shadowed(function: Function, name: str) -> bool:
    inner = (node for node in ast.walk(function) if isinstance(node, ast.arg) and node.arg == name)
    return len(list(inner)) > 1


def _same_in_all(function: Function, parameter: str, calls: list[ast.Call]) -> ast.expr | None:
    """Return the constant that a parameter is in every call."""
    values = [_given(function, parameter, call) for call in calls]
    if not values or any(not isinstance(value, ast.Constant) for value in values):
        return None
    return values[0] if len({ast.dump(value) for value in values if value}) == 1 else None


def _given(function: Function, parameter: str, call: ast.Call) -> ast.expr | None:
    if any(isinstance(value, ast.Starred) for value in call.args) or any(word.arg is None for word in call.keywords):
        return None
    by_keyword = {word.arg: word.value for word in call.keywords}
    by_place = dict(zip(_positional(function), call.args, strict=False))
    return by_keyword.get(parameter) or by_place.get(parameter) or _defaults(function).get(parameter)


def _defaults(function: Function) -> dict[str, ast.expr]:
    arguments = function.args
    with_default = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    found = {each.arg: value for each, value in zip(with_default, arguments.defaults, strict=True)}
    return found | {
        each.arg: value
        for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if value is not None
    }


def _substitute(function: Function, parameter: str, value: ast.expr) -> None:
    function.body = [Substituted({parameter: value}).visit(statement) for statement in function.body]


def _drop(function: Function, parameter: str, call: ast.Call) -> None:
    call.keywords = [word for word in call.keywords if word.arg != parameter]
    names = _positional(function)
    call.args = [value for number, value in enumerate(call.args) if names[number : number + 1] != [parameter]]


def _drop_parameter(function: Function, parameter: str) -> None:
    arguments, defaults = function.args, _defaults(function)
    arguments.args = [each for each in arguments.args if each.arg != parameter]
    arguments.kwonlyargs = [each for each in arguments.kwonlyargs if each.arg != parameter]
    arguments.defaults = [defaults[each.arg] for each in arguments.args if each.arg in defaults]
    arguments.kw_defaults = [defaults.get(each.arg) for each in arguments.kwonlyargs]


class Substituted(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace one."""
        return self._values.get(node.id, node)


class _Folded(ast.NodeTransformer):
    """Decides what constants decide."""

    def visit_FunctionDef(self, node: Function) -> Function:
        self.generic_visit(node)
        node.body = _until_return(node.body) or [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        decides = operator.truth if isinstance(node.op, ast.Or) else operator.not_
        first, *others = node.values
        if not isinstance(first, ast.Constant):
            return node
        if decides(first.value):
            return first
        return self.visit_BoolOp(ast.BoolOp(node.op, others)) if len(others) > 1 else others[0]

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Compare(ast.Constant(left), [ast.Eq()], [ast.Constant(right)]):
                return ast.Constant(left == right)
            case ast.Compare(ast.Constant(left), [ast.NotEq()], [ast.Constant(right)]):
                return ast.Constant(left != right)
            case ast.Compare(ast.Constant(int(left)), [ast.Lt()], [ast.Constant(int(right))]):
                return ast.Constant(left < right)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Leave out what says that something is on the CPU, where all is."""
        self.generic_visit(node)
        if ast.unparse(node.func).startswith(("torch.", "nn.")):
            node.keywords = [word for word in node.keywords if word.arg != "device" or not _is(word.value, "cpu")]
        match node:
            case ast.Call(ast.Attribute(value, "to"), [ast.Constant("cpu")], []):
                return value
            case ast.Call(ast.Name("getattr"), [value, ast.Constant(str(name))], []):
                return ast.Attribute(value, name, ast.Load())
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Put text into text."""
        parts: list[ast.expr] = []
        for part in node.values:
            match part:
                case ast.FormattedValue(ast.Constant(value), conversion, None):
                    text = repr(value) if conversion == ord("r") else str(value)
                    parts.append(ast.Constant(text))
                case _:
                    parts.append(part)
        if all(isinstance(part, ast.Constant) for part in parts):
            return ast.Constant("".join(str(part.value) for part in parts if isinstance(part, ast.Constant)))
        return ast.JoinedStr(parts)


def _is(node: ast.expr, value: Any) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value == value)


def _until_return(body: list[ast.stmt]) -> list[ast.stmt]:
    ends = (number for number, statement in enumerate(body) if isinstance(statement, ast.Return))
    return body[: next(ends, len(body)) + 1]
