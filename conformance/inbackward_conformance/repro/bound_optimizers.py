"""Source of the optimizer class, and of its options, that an assignment is bound to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding.bind import bound_assignment
from inbackward_conformance.catalogue.optimizers import find_optimizer_class
from inbackward_conformance.plan import Assignment
from inbackward_conformance.plan.literals import read
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.inline import PACKAGE

if TYPE_CHECKING:
    from typing import Any

    from inbackward_conformance.repro.call_templates import CallTemplates
    from inbackward_conformance.repro.inline import Inlined


def import_of(optimizer: str) -> str:
    """Return the statement that imports an optimizer class; empty for a class of torch or of the suite."""
    module, _, attribute = optimizer.rpartition(":")
    return f"from {module} import {attribute}" if module and module.partition(".")[0] != PACKAGE else ""


class BoundOptimizers:
    """Writes assignments in the body of a requirement as tuples of a class and its options."""

    def __init__(self, templates: CallTemplates) -> None:
        self._templates = templates

    def source_of(self, value: Any, inlined: Inlined) -> str | None:
        """Return the source of an assignment, and have the script import its class; None for any other value."""
        if not isinstance(value, Assignment):
            return None
        bound = bound_assignment(Implementation(self._templates.target), value)
        name = bound.optimizer.rpartition(":")[2]
        if line := import_of(bound.optimizer):
            inlined.add_import(line)
        elif ":" in bound.optimizer:
            inlined.add(find_optimizer_class(bound.optimizer))
        else:
            name = f"torch.optim.{name}"
        return f"({name}, {sources.options(bound.options)})"

    def source_of_argument(self, source: str, inlined: Inlined) -> str | None:
        """Return the source of an assignment whose `repr` is given; None for any other argument."""
        return self.source_of(read(source), inlined) if source.startswith("Assignment(") else None
