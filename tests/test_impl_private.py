"""A torch without one of the private names that `inbackward` needs is refused where it is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

LACKS_TASK = "import torch; del torch._C._current_graph_task_id"
LACKS_FUNCTION = "import torch.autograd.graph; del torch.autograd.graph._engine_run_backward"
LACKS_MODULE = "import sys, torch; sys.modules['torch.utils._python_dispatch'] = None"
UNPACKED = "import importlib.metadata; importlib.metadata.requires = lambda _: None"


@pytest.mark.parametrize(
    ("lacks", "name", "known"),
    [
        (LACKS_TASK, "torch._C._current_graph_task_id", "torch>="),
        (LACKS_FUNCTION, "torch.autograd.graph._engine_run_backward.__code__", "torch>="),
        (LACKS_MODULE, "torch.utils._python_dispatch.is_traceable_wrapper_subclass", "torch>="),
        (f"{LACKS_TASK}\n{UNPACKED}", "torch._C._current_graph_task_id", "see its changelog"),
    ],
    ids=["name", "attribute", "module", "without metadata"],
)
def test_an_import_names_what_this_torch_lacks(lacks: str, name: str, known: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{lacks}\nimport inbackward"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    told = f"ImportError: inbackward needs {name}, which torch {torch.__version__} lacks. Install one that it knows: "
    assert last.startswith(told + known)
    assert last.endswith(".")
