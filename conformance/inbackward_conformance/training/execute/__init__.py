"""Executes events: one function for each type of event."""

from inbackward_conformance.training.execute import (  # noqa: F401 (they register their functions)
    accumulation,
    attachment,
    backward,
    checkpoint,
    clipping,
    distributed,
    graph,
    hooks,
    model,
    pipeline,
    schedule,
    tensor_parallel,
)
from inbackward_conformance.training.execute.dispatch import execute

__all__ = ["execute"]
