"""Writes what a function returns in the place of its call, where that is all the function does."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import TYPE_CHECKING

from inbackward_conformance.repro.specialize import Substituted, calls_of, functions

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 70
"""An expression that is longer keeps its name where it is used more than once."""


def write_in_place(tree: ast.Module) -> bool:
    """Replace the calls of a function or method that is one expression; return whether there was one."""
    for name, function, kind in functions(tree):
        calls = calls_of(tree, name, kind)
        expression = _expression_of(function)
        if not calls or expression is None or (len(calls) > 1 and len(ast.unparse(expression)) > LONGEST):
            continue
        if all(_fits(function, expression, call) for call in calls):
            _InPlace(function, expression, calls).visit(tree)
            return True
    return False


def write_statements_in_place(tree: ast.Module) -> bool:
    """Put the statements of a function that another calls once, as a statement, there; return whether there was one."""
    for name, function, _ in functions(tree):
        for caller, block, number in _statements_that_call(tree, name):
            calls = calls_of(tree, name)
            if len(calls) == 1 and caller is not function and _is_only_statements(function, calls[0], caller):
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


def _is_only_statements(function: ast.FunctionDef, call: ast.Call, caller: ast.FunctionDef) -> bool:
    """Whether a function returns and yields nothing, is given plain things, and makes no name that `caller` knows."""
    arguments, inner = function.args, list(ast.walk(function))
    if function.decorator_list or call.keywords or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return False
    if any(
        isinstance(node, ast.Return | ast.Yield | ast.YieldFrom | ast.Lambda | ast.FunctionDef) for node in inner[1:]
    ):
        return False
    stored = {node.id for node in inner if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    known = {node.id for node in ast.walk(caller) if isinstance(node, ast.Name)} | {
        node.arg for node in ast.walk(caller) if isinstance(node, ast.arg)
    }
    parameters = {argument.arg for argument in arguments.args}
    return (
        len(call.args) == len(arguments.args)
        and all(isinstance(value, ast.Name | ast.Constant) for value in call.args)
        and not stored & (known | parameters)
    )


def _expression_of(function: ast.FunctionDef) -> ast.expr | None:
    if function.decorator_list or function.name == "__init__":
        return None
    match function.body:
        case [ast.Return(ast.expr() as value)] | [ast.Expr(ast.Call() as value)]:
            recursive = any(
                function.name in {getattr(inner, "id", ""), getattr(inner, "attr", "")} for inner in ast.walk(value)
            )
            return None if recursive else value
    return None


def _given(call: ast.Call) -> list[ast.expr]:
    """Return what is given by place, first what a method is called on."""
    return [call.func.value, *call.args] if isinstance(call.func, ast.Attribute) else call.args


def _fits(function: ast.FunctionDef, expression: ast.expr, call: ast.Call) -> bool:
    """Whether each argument is given by place, and may stand where its parameter does."""
    arguments, given = function.args, _given(call)
    if call.keywords or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
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
    return all(
        isinstance(value, ast.Name | ast.Constant) or names.count(parameter.arg) == 1
        for parameter, value in zip(arguments.args, given, strict=True)
    )


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
        values = dict(zip(parameters, _given(node), strict=True))
        written: ast.AST = Substituted(values).visit(deepcopy(self._expression))
        return written
