"""What one case, and one requirement, came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.plan import Plan


class Outcome(StrEnum):
    """The outcomes, worst first: the worst of its cases is the outcome of a requirement."""

    CRASHES = "crashes"
    HANGS = "hangs"
    ERROR = "error"
    DIVERGES = "diverges"
    FAILS = "fails"
    REFUSES = "refuses"
    NOT_RUN = "not run"
    NOT_OFFERED = "not offered"
    CONFORMS = "conforms"

    @staticmethod
    def worst(outcomes: Iterable[Outcome]) -> Outcome:
        """Return the worst of `outcomes`; no outcome at all is `not run`."""
        return min(outcomes, key=_ORDER.index, default=Outcome.NOT_RUN)


_ORDER = list(Outcome)

NEVER_EXCUSED_BY_CAUSE_ALONE = frozenset({Outcome.ERROR, Outcome.HANGS, Outcome.CRASHES})
"""An expected failure covers these only where its entry names the outcome."""


class Level(StrEnum):
    """How binding a requirement is; a verdict rests on the MUSTs alone."""

    MUST = "MUST"
    SHOULD = "SHOULD"


class Refusal(StrEnum):
    """The latest moment at which a requirement accepts a refusal."""

    AT_ATTACHMENT = "at attachment"
    BEFORE_ANY_CHANGE = "before any change"
    LATE = "late"


class Compared(StrEnum):
    """What was compared where a run departed from the standard loop."""

    PARAMETERS = "parameters"
    BUFFERS = "buffers"
    GRADIENTS = "gradients"
    STATES = "optimizer states"
    RANKS = "parameters of two ranks"
    ERROR = "an error of the implementation alone"
    STANDARD_ERROR = "an error of the standard loop alone"


@dataclass(frozen=True)
class Difference:
    """Where a run departed from the standard loop: all that a script of it has to look at.

    Attributes:
        compared: what was compared.
        event: the number of the event after which it showed; None: not known, or no event of a plan.
        refusal: the message of a RuntimeError, TypeError or ValueError that was raised, on one line; empty: none was.
    """

    compared: Compared
    event: int | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Finding:
    """The outcome of one comparison or check.

    Attributes:
        outcome: the outcome.
        detail: the line that a maintainer reads first.
        passed: whether the requirement accepts it.
        difference: where the run departed from the standard loop; None: it did not, or there was no run of a plan.
    """

    outcome: Outcome
    detail: str = ""
    passed: bool = True
    difference: Difference | None = None


CONFORMS = Finding(Outcome.CONFORMS)


class BrokenPromise(AssertionError):
    """A case did not pass; carries the finding that says how, and the plan that shows it, if there is one."""

    def __init__(self, finding: Finding, plan: Plan | None = None) -> None:
        super().__init__(f"{finding.outcome}: {finding.detail}")
        self.finding = finding
        self.plan = plan


class NotOffered(NotImplementedError):
    """Raised by an adapter, from any call, at any time: this implementation does not offer that."""


class NotRun(RuntimeError):
    """This machine cannot run the case; says why."""


class OutOfTime(BaseException):
    """A case ran past its time limit; no `except Exception` on its way can take it for something else."""
