"""Decides what constants decide: conditions, comparisons, text in text, options in options."""

from __future__ import annotations

import ast
import operator
from copy import deepcopy
from typing import Any

from inbackward_conformance.repro.specialize import Substituted

LONGEST_RETURNED = 100
"""An expression that is longer keeps the name of its part."""


class Folded(ast.NodeTransformer):
    """Decides what constants decide."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave out what comes after a return."""
        self.generic_visit(node)
        node.body = _returning_directly(_until_return(node.body)) or [ast.Pass()]
        return node

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        """Write what is done for one alone without a loop."""
        self.generic_visit(node)
        match node:
            case ast.For(ast.Name(name), ast.List([ast.Name() | ast.Attribute() as one]), body, []):
                return [Substituted({name: one}).visit(statement) for statement in body]
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Keep the branch that is taken."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Keep the value that is taken."""
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """Turn round."""
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """Leave out what decides nothing."""
        self.generic_visit(node)
        decides = operator.truth if isinstance(node.op, ast.Or) else operator.not_
        first, *others = node.values
        if not isinstance(first, ast.Constant):
            return node
        if decides(first.value):
            return first
        return self.visit_BoolOp(ast.BoolOp(node.op, others)) if len(others) > 1 else others[0]

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Compare."""
        self.generic_visit(node)
        match node:
            case ast.Compare(ast.Constant(left), [ast.Eq()], [ast.Constant(right)]):
                return ast.Constant(left == right)
            case ast.Compare(ast.Constant(left), [ast.NotEq()], [ast.Constant(right)]):
                return ast.Constant(left != right)
            case ast.Compare(ast.Constant(int(left)), [ast.Lt()], [ast.Constant(int(right))]):
                return ast.Constant(left < right)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Put options into options."""
        self.generic_visit(node)
        items: list[tuple[ast.expr | None, ast.expr]] = []
        for key, value in zip(node.keys, node.values, strict=True):
            match key, value:
                case None, ast.Dict():
                    items += zip(value.keys, value.values, strict=True)
                case _:
                    items.append((key, value))
        return ast.Dict([key for key, _ in items], [value for _, value in items])

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Write options out, and leave out what says that something is on the CPU, where all is."""
        self.generic_visit(node)
        node.keywords = [written for word in node.keywords for written in _written_out(word)]
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


def _written_out(word: ast.keyword) -> list[ast.keyword]:
    """Return `lr=0.1` for `**{"lr": 0.1}`."""
    match word:
        case ast.keyword(None, ast.Dict(keys, values)) if all(isinstance(key, ast.Constant) for key in keys):
            return [
                ast.keyword(str(key.value), value)
                for key, value in zip(keys, values, strict=True)
                if isinstance(key, ast.Constant)
            ]
    return [word]


def _is(node: ast.expr, value: Any) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value == value)


def _until_return(body: list[ast.stmt]) -> list[ast.stmt]:
    ends = (number for number, statement in enumerate(body) if isinstance(statement, ast.Return))
    return body[: next(ends, len(body)) + 1]


def _returning_directly(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return `[…, return f(a)]` for `[…, x = a, return f(x)]`."""
    match body:
        case [*before, ast.Assign([ast.Name(name)], value), ast.Return(ast.expr() as returned)]:
            names = [node.id for node in ast.walk(returned) if isinstance(node, ast.Name)]
            written = Substituted({name: value}).visit(deepcopy(returned))
            late = any(isinstance(node, ast.Lambda | ast.comprehension) for node in ast.walk(returned))
            if (
                names.count(name) == 1
                and (isinstance(returned, ast.Name) or not late)
                and len(ast.unparse(written)) <= LONGEST_RETURNED
            ):
                return [*before, ast.Return(written)]
    return body
