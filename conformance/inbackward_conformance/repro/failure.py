"""A failed case, as input of a script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inbackward_conformance.outcome import Compared, Difference

if TYPE_CHECKING:
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.specification import Requirement


class CannotWrite(LookupError):
    """A part of a failing case cannot be written as source."""


AT_THE_END = Difference(Compared.PARAMETERS)
"""What a script compares if the difference is unknown."""


@dataclass(frozen=True)
class Failure:
    """One case of one requirement that failed.

    Attributes:
        difference: where the run differs from the standard loop.
        plan: the plan that was run; None if the requirement runs no plan.
        arguments: source of the arguments of a requirement that runs no plan, by name.
        device: the device of the run.
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
