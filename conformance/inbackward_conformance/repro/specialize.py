"""Writes the value of a parameter in the place of its name, where it is the same in every call.

A requirement is written for all its cases, and a script is of one: what the others need goes.
"""

from __future__ import annotations

import ast
from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from inbackward_conformance.repro.settled import is_settled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CALLED_BY_TORCH = {"forward", "backward", "step"}

KNOWN_ELSEWHERE = {name for owner in (dict, list, set, str, torch.Tensor, nn.Module, Optimizer) for name in dir(owner)}
"""Names of methods that objects of other classes have, too: whose is called, its name does not tell."""

Function = ast.FunctionDef

Reference = type[ast.Name] | type[ast.Attribute]
"""How something is called: a function by its name, a method as an attribute."""


def specialize(tree: ast.Module) -> bool:
    """Put what it always is in the place of a parameter; return whether there was one."""
    for name, function, called_as in functions(tree):
        calls = calls_of(tree, name, called_as)
        for parameter in _parameters(function):
            if (value := _same_in_all(function, parameter, calls)) is not None:
                _substitute(function, parameter, value)
                for call in calls:
                    _drop(function, parameter, call)
                _drop_parameter(function, parameter)
                return True
    return False


def functions(tree: ast.Module) -> Iterator[tuple[str, Function, Reference]]:
    """Yield functions with the name that they are called by, and how; a constructor has that of its class.

    What several have is left out, and methods that torch may call, or that others have as well.
    """
    found: list[tuple[str, Function, Reference]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node, ast.Name))
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    constructs = method.name == "__init__"
                    found.append((node.name, method, ast.Name) if constructs else (method.name, method, ast.Attribute))
    times = Counter(name for name, _, _ in found)
    for name, function, called_as in found:
        elsewhere = CALLED_BY_TORCH | (KNOWN_ELSEWHERE if called_as is ast.Attribute else set())
        if times[name] == 1 and name not in elsewhere:
            yield name, function, called_as


def calls_of(tree: ast.Module, name: str, called_as: Reference = ast.Name) -> list[ast.Call]:
    """Return the calls of a function; none at all where it is used in another way, or an argument has its name."""
    uses = [node for node in ast.walk(tree) if isinstance(node, called_as) and _name(node) == name]
    if called_as is ast.Name and any(isinstance(node, ast.arg) and node.arg == name for node in ast.walk(tree)):
        return []
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and any(node.func is found for found in uses)
    ]
    return calls if len(uses) == len(calls) else []


def bound_in(*nodes: ast.AST) -> set[str]:
    """Return the names that something binds: arguments, variables, errors."""
    inner = [each for node in nodes for each in ast.walk(node)]
    names = {node.id for node in inner if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    names |= {node.arg for node in inner if isinstance(node, ast.arg)}
    return names | {str(node.name) for node in inner if isinstance(node, ast.ExceptHandler)}


def _name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _positional(function: Function) -> list[str]:
    names = [argument.arg for argument in function.args.args]
    return names[1:] if names[:1] == ["self"] else names


def _parameters(function: Function) -> list[str]:
    if function.args.vararg or function.args.kwarg or function.decorator_list:
        return []
    bound = bound_in(*function.body)
    names = [*_positional(function), *(argument.arg for argument in function.args.kwonlyargs)]
    return [name for name in names if name not in bound]


def _same_in_all(function: Function, parameter: str, calls: list[ast.Call]) -> ast.expr | None:
    """Return the value that a parameter has in every call."""
    values = [_given(function, parameter, call) for call in calls]
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == parameter]
    if not values or any(value is None or not is_settled(value, uses, function) for value in values):
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
    """Puts expressions in the place of names that are read."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace one."""
        if node.id in self._values and isinstance(node.ctx, ast.Load):
            return deepcopy(self._values[node.id])
        return node
