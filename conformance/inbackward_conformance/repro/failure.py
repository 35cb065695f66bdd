"""A case that failed: all that a script of it is written from, in a run or from its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Compared, Difference

if TYPE_CHECKING:
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.specification import Requirement


AT_THE_END = Difference(Compared.PARAMETERS)
"""Where a script looks, if it is not known where a run departed."""


@dataclass(frozen=True)
class Failure:
    """One case of one requirement that failed.

    Attributes:
        difference: where the run departed from the standard loop; by default `AT_THE_END`.
        plan: the plan that was run; None where the requirement is no run of a plan.
        arguments: where it is none, the values of the case as source, by the names of the requirement's parameters.
        device: where it ran.
    """

    implementation: str
    requirement: Requirement
    case: str
    outcome: str
    detail: str
    difference: Difference = AT_THE_END
    plan: Plan | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
