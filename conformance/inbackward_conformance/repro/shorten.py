"""Leaves out of a script what its failure has no need of, as long as anything can be left out."""

from __future__ import annotations

import ast

from inbackward_conformance.repro.attributes import settle_attributes
from inbackward_conformance.repro.classes import merge_with_base, replace_by_bases, replace_sequentials
from inbackward_conformance.repro.folded import Folded
from inbackward_conformance.repro.in_place import write_in_place, write_statements_in_place
from inbackward_conformance.repro.specialize import CALLED_BY_TORCH, specialize

CALLED_BY_SPAWN = {"main"}


def shortened(source: str) -> str:
    """Return the source, shorter, that does the same."""
    tree = ast.parse(source)
    ways = (
        specialize,
        settle_attributes,
        _drop_unused,
        write_in_place,
        write_statements_in_place,
        merge_with_base,
        replace_by_bases,
        replace_sequentials,
    )
    while any(way(tree) for way in ways):
        tree.body = [*map(Folded().visit, tree.body)]
    return ast.unparse(ast.fix_missing_locations(tree))


def _drop_unused(tree: ast.Module) -> bool:
    """Drop functions and classes that nothing names; torch calls some methods by itself."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | CALLED_BY_SPAWN
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | CALLED_BY_TORCH
    unused: list[tuple[ast.Module | ast.ClassDef, ast.stmt]] = [
        (tree, node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in names
    ]
    unused += [
        (owner, node)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name not in attributes and not node.name.startswith("__")
    ]
    for owner, node in unused:
        owner.body.remove(node)
    return bool(unused)
