"""A case that failed: all that a script of it is written from, in a run or from its record."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.specification import Requirement

_RAISED = re.compile(r"raises (?:RuntimeError|TypeError|ValueError): (.{1,40})")
_EVENT = re.compile(r"\bevent (\d+), ")


class Kind(Enum):
    """What a script has to look at; the text is how the detail of a finding says so."""

    RAISED_AND_THE_STANDARD_LOOP_HAS_NOT = r"\braises\b|\bwas not stepped by"
    THE_STANDARD_LOOP_ALONE_RAISED = r"goes through, where the standard loop raises"
    RANKS_APART = r"differs between rank"
    GRADIENTS = r"\.grad (is|differs)"
    STATES = r"optimizer state of"
    BUFFERS = r"\bbuffer"
    PARAMETERS = r""


_ORDER = (
    Kind.THE_STANDARD_LOOP_ALONE_RAISED,
    Kind.RANKS_APART,
    Kind.GRADIENTS,
    Kind.STATES,
    Kind.RAISED_AND_THE_STANDARD_LOOP_HAS_NOT,
    Kind.BUFFERS,
    Kind.PARAMETERS,
)


@dataclass(frozen=True)
class Failure:
    """One case of one requirement, and what came of it.

    Attributes:
        plan: what was run; None where the requirement is no run of a plan.
        arguments: where it is none, the values of the case as source, by the names of the requirement's parameters.
        device: where it ran.
    """

    implementation: str
    requirement: Requirement
    case: str
    outcome: str
    detail: str
    plan: Plan | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def kind(self) -> Kind:
        """What has gone wrong."""
        return next(kind for kind in _ORDER if re.search(kind.value, self.detail))

    @property
    def event(self) -> int | None:
        """The number of the event after which it showed; None where it is not known."""
        found = _EVENT.search(self.detail)
        return int(found[1]) if found else None

    @property
    def raised(self) -> str:
        """How the error begins that was raised; empty: none was, or none that could be taken for a refusal."""
        found = _RAISED.search(self.detail)
        return found[1] if found else ""
