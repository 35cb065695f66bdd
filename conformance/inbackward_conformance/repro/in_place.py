"""Writes what a function returns in the place of its call, where that is all the function does."""

from __future__ import annotations

import ast
from copy import deepcopy

from inbackward_conformance.repro.specialize import Substituted, calls_of

LONGEST = 70
"""An expression that is longer keeps its name where it is used more than once."""


def write_in_place(tree: ast.Module) -> bool:
    """Replace the calls of a function that is one expression; return whether there was one."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        calls = calls_of(tree, node.name)
        expression = _expression_of(node)
        if not calls or expression is None or (len(calls) > 1 and len(ast.unparse(expression)) > LONGEST):
            continue
        if all(_fits(node, expression, call) for call in calls):
            tree.body.remove(node)
            _InPlace(node, expression, calls).visit(tree)
            return True
    return False


def _expression_of(function: ast.FunctionDef) -> ast.expr | None:
    match function.body:
        case [ast.Return(ast.expr() as value)] | [ast.Expr(ast.Call() as value)]:
            recursive = any(isinstance(inner, ast.Name) and inner.id == function.name for inner in ast.walk(value))
            return None if recursive else value
    return None


def _fits(function: ast.FunctionDef, expression: ast.expr, call: ast.Call) -> bool:
    """Whether each argument is given by place, and may stand where its parameter does."""
    arguments = function.args
    if call.keywords or arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return False
    if len(call.args) != len(arguments.args) or any(isinstance(value, ast.Starred) for value in call.args):
        return False
    if any(isinstance(inner, ast.Lambda | ast.comprehension) for inner in ast.walk(expression)):
        return not arguments.args
    names = [inner.id for inner in ast.walk(expression) if isinstance(inner, ast.Name)]
    return all(
        isinstance(value, ast.Name | ast.Constant) or names.count(parameter.arg) == 1
        for parameter, value in zip(arguments.args, call.args, strict=True)
    )


class _InPlace(ast.NodeTransformer):
    def __init__(self, function: ast.FunctionDef, expression: ast.expr, calls: list[ast.Call]) -> None:
        self._parameters = [argument.arg for argument in function.args.args]
        self._expression = expression
        self._calls = calls

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not any(node is call for call in self._calls):
            return node
        written: ast.AST = Substituted(dict(zip(self._parameters, node.args, strict=True))).visit(
            deepcopy(self._expression)
        )
        return written
