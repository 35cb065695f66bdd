"""Puts a script together: module docstring, imports and definitions, formatted by ruff."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance.repro.unused import remove_unused, used_definitions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.failure import Failure

WIDTH = 120
COMMON_IMPORTS = """
import copy
import faulthandler
import io
import sys
import tempfile
import torch
import torch.distributed as dist
from datetime import timedelta
from itertools import count
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed import fsdp
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power_sgd
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from torch.testing import assert_close
"""


def script(failure: Failure, templates: CallTemplates, imports: Iterable[str], parts: Iterable[str]) -> str:
    """Return the text of a script with the source in `imports` and `parts`, and what `templates` need."""
    source = remove_unused("\n\n\n".join(part for part in parts if part))
    above = [f'"""{_docstring(failure)}\n"""', COMMON_IMPORTS, *imports, *templates.imports]
    return _formatted("\n\n\n".join(["\n".join(above), *used_definitions(templates.definitions, source), source, ""]))


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


def _formatted(source: str) -> str:
    """Return the source without unused imports, formatted by ruff."""
    source = _ruff("check", "--quiet", "--fix-only", "--select=I,F401,UP034", source)
    return _ruff("format", source)


def _ruff(*arguments: str) -> str:
    *options, source = arguments
    layout = ["--isolated", f"--line-length={WIDTH}", "--stdin-filename=script.py", "-"]
    command = [sys.executable, "-m", "ruff", *options, *layout]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        msg = f"ruff cannot lay a script out: {done.stderr.strip()}"
        raise RuntimeError(msg)
    return done.stdout
