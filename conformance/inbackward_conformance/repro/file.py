"""Puts a script together: module docstring, imports and definitions, formatted by ruff."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from itertools import takewhile
from typing import TYPE_CHECKING

from inbackward_conformance import accelerator
from inbackward_conformance.repro.layers import spell_out_layers
from inbackward_conformance.repro.unused import names_read, remove_unused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.failure import Failure

WIDTH = 120
REPEATABLE = """
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
torch.use_deterministic_algorithms(True, warn_only=True)
"""
"""As `accelerator` sets it, which a failure there was seen under."""

COMMON_IMPORTS = """
import copy
import faulthandler
import io
import os
import sys
import tempfile
import torch
import torch.distributed as dist
from functools import partial
from itertools import count
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed import fsdp
from torch.distributed import pipelining
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power_sgd
from torch.distributed import tensor as tensors
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.tensor import parallel as tensor_parallel
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
"""


def script(failure: Failure, templates: CallTemplates, imports: Iterable[str], parts: Iterable[str]) -> str:
    """Return the text of a script with the source in `imports` and `parts`, and what `templates` need."""
    setting = [REPEATABLE.strip()] * accelerator.is_accelerator(failure.device)
    needed = remove_unused("\n\n\n".join(part for part in [*setting, *templates.copied.definitions, *parts] if part))
    source = spell_out_layers(needed)
    below = f"{templates.definitions}\n\n\n{source}"
    sort = _can_be_sorted(templates.imports, names_read(below))
    blocks = [
        f'"""{_docstring(failure)}\n"""',
        *[templates.imports] * (not sort),
        _needed_imports("\n".join([COMMON_IMPORTS, *imports, *[templates.imports] * sort]), below),
        templates.definitions,
        _ruff("check", "--quiet", "--fix-only", "--select=UP034", source),
    ]
    return _ruff("format", "\n\n\n".join([*blocks, ""]))


def _needed_imports(imports: str, source: str) -> str:
    """Return the import statements that the source needs, sorted."""
    checked = _ruff("check", "--quiet", "--fix-only", "--select=I,F401", f"{imports}\n\n\n{source}")
    statements = list(takewhile(lambda node: isinstance(node, ast.Import | ast.ImportFrom), ast.parse(checked).body))
    return "\n".join(checked.splitlines()[: statements[-1].end_lineno if statements else 0])


def _can_be_sorted(imports: str, names: Collection[str]) -> bool:
    """Return whether statements may stand in any order, and without unused names of `from … import …`.

    A comment may give a reason for the order, and a module that is imported and not used has an effect, unless it is of
    Python's own.
    """
    nodes = ast.parse(imports).body
    modules = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    harmless = {*names, *sys.stdlib_module_names}
    return (
        "#" not in imports
        and all(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
        and all((alias.asname or alias.name.partition(".")[0]) in harmless for alias in modules)
    )


def _docstring(failure: Failure) -> str:
    requirement = failure.requirement
    case = f" in case {failure.case}" if failure.case else ""
    paragraphs = [
        f"{requirement.id} ({requirement.level}): {failure.implementation} {failure.outcome}{case}.",
        requirement.text.partition("\n\n")[0],
        f"Observed: {failure.detail}",
    ]
    filled = [textwrap.fill(paragraph, WIDTH, break_long_words=False) for paragraph in paragraphs]
    return "\n\n".join(filled).replace("\\", "\\\\").replace('"""', "'''")


def _ruff(*arguments: str) -> str:
    *options, source = arguments
    layout = ["--isolated", f"--line-length={WIDTH}", "--stdin-filename=script.py", "-"]
    command = [sys.executable, "-m", "ruff", *options, *layout]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        msg = f"ruff cannot lay a script out: {done.stderr.strip()}"
        raise RuntimeError(msg)
    return done.stdout
