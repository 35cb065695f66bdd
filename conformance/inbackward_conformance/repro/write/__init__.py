"""Writes events into a script: one function for each type of event."""

from inbackward_conformance.repro.write import (  # noqa: F401 (they register their functions)
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
from inbackward_conformance.repro.write.dispatch import write

__all__ = ["write"]
