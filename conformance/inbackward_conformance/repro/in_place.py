"""Writes what a function returns in the place of its call, where that is all the function does."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import TYPE_CHECKING

from inbackward_conformance.repro.specialize import Substituted, bound_in, calls_of, functions

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 70
"""An expression that is longer keeps its name where it is used more than once."""


def write_in_place(tree: ast.Module) -> bool:
    """Replace the calls of a function or method that is one expression; return whether there was one."""
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for name, function, called_as in functions(tree):
        calls = calls_of(tree, name, called_as)
        expression = _expression_of(function)
        if not calls or expression is None or (len(calls) > 1 and len(ast.unparse(expression)) > LONGEST):
            continue
        returns = isinstance(function.body[0], ast.Return)
        if not returns and not all(any(call is found for found in statements) for call in calls):
            continue
        if all(_fits(function, expression, call) for call in calls) and not _hidden(tree, function, calls):
            _InPlace(function, expression, calls).visit(tree)
            return True
    return False


def write_statements_in_place(tree: ast.Module) -> bool:
    """Put the statements of a function that another calls once, as a statement, there; return whether there was one."""
    for name, function, called_as in functions(tree):
        calls = calls_of(tree, name) if called_as is ast.Name and function in tree.body else []
        for caller, block, number in _statements_that_call(tree, name):
            if len(calls) == 1 and caller is not function and _is_only_statements(function, calls[0]):
                if bound_in(*function.body) & _names_in(caller) or _hidden(tree, function, calls):
                    continue
                parameters = [argument.arg for argument in function.args.args]
                written = Substituted(dict(zip(parameters, calls[0].args, strict=True)))
                block[number : number + 1] = [written.visit(statement) for statement in function.body]
                tree.body.remove(function)
                return True
    return False


def _statements_that_call(tree: ast.Module, name: str) -> Iterator[tuple[ast.FunctionDef, list[ast.stmt], int]]:
    """Yield the function, the block in it, and the place in the block."""
    for caller in tree.body:
        if isinstance(caller, ast.FunctionDef):
            for node in ast.walk(caller):
                block = getattr(node, "body", [])
                for number, statement in enumerate(block if isinstance(block, list) else []):
                    match statement:
                        case ast.Expr(ast.Call(ast.Name(called))) if called == name:
                            yield caller, block, number


def _is_only_statements(function: ast.FunctionDef, call: ast.Call) -> bool:
    """Whether a function returns and yields nothing, keeps its parameters, and is given plain things."""
    arguments, body = function.args, [node for statement in function.body for node in ast.walk(statement)]
    if function.decorator_list or call.keywords or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return False
    if any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom | ast.Lambda | ast.FunctionDef) for node in body):
        return False
    return (
        len(call.args) == len(arguments.args)
        and all(isinstance(value, ast.Name | ast.Constant) for value in call.args)
        and not bound_in(*function.body) & {argument.arg for argument in arguments.args}
    )


def _hidden(tree: ast.Module, function: ast.FunctionDef, calls: list[ast.Call]) -> bool:
    """Whether a name that a function has from outside means something else where it is called."""
    outside = _names_in(function) - bound_in(function)
    return any(
        isinstance(caller, ast.FunctionDef | ast.ClassDef)
        and outside & bound_in(caller)
        and any(node is call for node in ast.walk(caller) for call in calls)
        for caller in tree.body
    )


def _names_in(function: ast.AST) -> set[str]:
    return bound_in(function) | {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


def _expression_of(function: ast.FunctionDef) -> ast.expr | None:
    if function.decorator_list or function.name == "__init__" or "super()" in ast.unparse(function):
        return None
    match function.body:
        case [ast.Return(ast.expr() as value)] | [ast.Expr(ast.Call() as value)]:
            recursive = any(
                function.name in {getattr(inner, "id", ""), getattr(inner, "attr", "")} for inner in ast.walk(value)
            )
            return None if recursive else value
    return None


def _by_place(call: ast.Call) -> list[ast.expr]:
    """Return what is given by place, first what a method is called on."""
    return [call.func.value, *call.args] if isinstance(call.func, ast.Attribute) else call.args


def _fits(function: ast.FunctionDef, expression: ast.expr, call: ast.Call) -> bool:
    """Whether each argument is given by place, and may stand where its parameter does: at most one is computed."""
    arguments, given = function.args, _by_place(call)
    if call.keywords or arguments.vararg or arguments.kwarg or arguments.kwonlyargs or "super()" in ast.unparse(call):
        return False
    if len(given) != len(arguments.args) or any(isinstance(value, ast.Starred) for value in given):
        return False
    inner = list(ast.walk(expression))
    names = [node.id for node in inner if isinstance(node, ast.Name)]
    if any(isinstance(node, ast.Lambda | ast.comprehension) for node in inner):
        return all(
            isinstance(value, ast.Name) and (value.id == parameter.arg or value.id not in names)
            for parameter, value in zip(arguments.args, given, strict=True)
        )
    computed = [
        parameter.arg
        for parameter, value in zip(arguments.args, given, strict=True)
        if not isinstance(value, ast.Name | ast.Constant)
    ]
    perhaps = any(isinstance(node, ast.IfExp | ast.BoolOp) for node in inner)
    return not computed or (len(computed) == 1 and names.count(computed[0]) == 1 and not perhaps)


class _InPlace(ast.NodeTransformer):
    def __init__(self, function: ast.FunctionDef, expression: ast.expr, calls: list[ast.Call]) -> None:
        self._function = function
        self._expression = expression
        self._calls = calls

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if node is self._function else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)  # an argument may be such a call as well
        if not any(node is call for call in self._calls):
            return node
        parameters = [argument.arg for argument in self._function.args.args]
        values = dict(zip(parameters, _by_place(node), strict=True))
        written: ast.AST = Substituted(values).visit(deepcopy(self._expression))
        return written
