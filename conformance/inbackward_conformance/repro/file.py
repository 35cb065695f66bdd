"""A script as a file: its head, and the layout that ruff gives it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.repro.failure import Failure

WIDTH = 120
CALLED_BY_TORCH = {"forward", "backward", "step"}
ALWAYS_AT_HAND = """
import copy
import io
import itertools
import sys
import tempfile
import torch
import torch.distributed as dist
from torch import nn
"""


def script(failure: Failure, imports: Iterable[str], parts: Iterable[str]) -> str:
    """Return the text of a file: what it is about, then `imports` and `parts`, which are source."""
    source = _without_unused_methods("\n\n\n".join(part for part in parts if part))
    return _laid_out(f'"""{_head(failure)}\n"""\n{ALWAYS_AT_HAND}\n' + "\n".join(imports) + f"\n\n\n{source}\n")


def _head(failure: Failure) -> str:
    requirement = failure.requirement
    case = f" in case {failure.case}" if failure.case else ""
    paragraphs = [
        f"{requirement.id} ({requirement.level}): {failure.implementation} {failure.outcome}{case}.",
        *requirement.text.split("\n\n"),
        f"Observed: {failure.detail}",
    ]
    filled = [textwrap.fill(paragraph, WIDTH, break_long_words=False) for paragraph in paragraphs]
    return "\n\n".join(filled).replace("\\", "\\\\").replace('"""', "'''")


def _without_unused_methods(source: str) -> str:
    """Return the source without methods of classes that nothing names; torch calls some by itself."""
    tree = ast.parse(source)
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | CALLED_BY_TORCH
    unused = [
        (owner, node)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name not in named and not node.name.startswith("__")
    ]
    for owner, node in unused:
        owner.body.remove(node)
    return _without_unused_methods(ast.unparse(tree)) if unused else source


def _laid_out(source: str) -> str:
    """Return the source without imports that nothing needs, in the layout of ruff's defaults."""
    source = _ruff("check", "--quiet", "--fix-only", "--select=I,F401", source)
    return _ruff("format", source)


def _ruff(*arguments: str) -> str:
    *options, source = arguments
    command = [
        sys.executable,
        "-m",
        "ruff",
        *options,
        "--isolated",
        f"--line-length={WIDTH}",
        "--stdin-filename=script.py",
        "-",
    ]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        msg = f"ruff cannot lay a script out: {done.stderr.strip()}"
        raise RuntimeError(msg)
    return done.stdout
