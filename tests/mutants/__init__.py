"""Broken implementations, one defect each: what the suite must catch.

A mutant is named after what a tired engineer did. `@fails(requirement)` names the requirement that has to catch it, and
the case that shows it best, where the first one does not.
"""

from __future__ import annotations

from mutants import (  # noqa: F401 (they register their mutants)
    of_ddp,
    of_equivalence,
    of_experts,
    of_fsdp,
    of_functional,
    of_handed_over,
    of_hazards,
    of_hook_then_optimizer,
    of_memory_in_common,
    of_mesh,
    of_other_libraries,
    of_pipeline,
    of_properties,
    of_structure,
    of_tensor_parallel,
    of_training,
)
from mutants.registry import MUTANTS, Mutant, chapters

__all__ = ["MUTANTS", "Mutant", "chapters"]
