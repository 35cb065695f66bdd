"""Decides what constants decide: conditions, comparisons, text in text, options in options, what is on the CPU."""

from __future__ import annotations

import ast
import operator
from copy import deepcopy

from inbackward_conformance.repro.specialize import Substituted

LONGEST_RETURNED = 100
"""An expression that is longer keeps the name of its part."""


class Folded(ast.NodeTransformer):
    """Decides what constants decide."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave out what comes after a return, and a name for what is returned."""
        self.generic_visit(node)
        node.body = _returning_directly(_until_return(node.body))
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
        if all(isinstance(key, ast.Constant) for key, _ in items):  # the last one counts
            items = list({ast.unparse(key): (key, value) for key, value in items if key}.values())
        return ast.Dict([key for key, _ in items], [value for _, value in items])

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Write options out, and leave out what says that something is on the CPU, where all is."""
        self.generic_visit(node)
        node.keywords = [written for word in node.keywords for written in written_out(word)]
        if ast.unparse(node.func).startswith(("torch.", "nn.")):
            node.keywords = [word for word in node.keywords if ast.unparse(word) != "device='cpu'"]
        match node:
            case ast.Call(ast.Attribute(value, "to"), [ast.Constant("cpu")], []):
                return value
            case ast.Call(ast.Name("getattr"), [value, ast.Constant(str(name))], []) if name.isidentifier():
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


def written_out(word: ast.keyword) -> list[ast.keyword]:
    """Return `lr=0.1` for `**{"lr": 0.1}`."""
    match word:
        case ast.keyword(None, ast.Dict(keys, values)):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if all(isinstance(name, str) and name.isidentifier() for name in names):
                return [ast.keyword(str(name), value) for name, value in zip(names, values, strict=True)]
    return [word]


def _until_return(body: list[ast.stmt]) -> list[ast.stmt]:
    ends = (number for number, statement in enumerate(body) if isinstance(statement, ast.Return))
    return body[: next(ends, len(body)) + 1]


def _returning_directly(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return `[…, return f(a)]` for `[…, x = a, return f(x)]`, where `x` is used nowhere else."""
    match body:
        case [*before, ast.Assign([ast.Name(name)], value), ast.Return(ast.expr() as returned)]:
            everywhere = [node for statement in body for node in ast.walk(statement)]
            others = [node for node in everywhere if isinstance(node, ast.Name) and node.id == name][2:]
            outside = any(isinstance(node, ast.Global | ast.Nonlocal) for node in everywhere)
            written = Substituted({name: value}).visit(deepcopy(returned))
            short = len(ast.unparse(written)) <= LONGEST_RETURNED
            if _first(returned) == name and short and not others and not outside:
                return [*before, ast.Return(written)]
    return body


def _first(expression: ast.expr) -> str:
    """Return the name that is read first, if nothing is called before; functions of torch and builtins are no such."""
    match expression:
        case ast.Name(name):
            return name
        case ast.Call(ast.Name(), [argument, *_]):
            return _first(argument)
        case ast.Call(ast.Attribute() as function, [argument, *_]) if ast.unparse(function).startswith("torch."):
            return _first(argument)
        case ast.Call(inner, _) | ast.Attribute(inner) | ast.Subscript(inner):
            return _first(inner)
    return ""
