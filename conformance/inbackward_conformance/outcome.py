"""Outcomes of cases and requirements, and the exceptions that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.compatibility import StrEnum

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inbackward_conformance.plan import Plan


class Outcome(StrEnum):
    """The outcomes, worst first; the outcome of a requirement is the worst of its cases."""

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
        """Return the worst of `outcomes`, or `not run` if there are none."""
        return min(outcomes, key=_ORDER.index, default=Outcome.NOT_RUN)


_ORDER = list(Outcome)

NEVER_EXCUSED_BY_CAUSE_ALONE = frozenset({Outcome.ERROR, Outcome.HANGS, Outcome.CRASHES})
"""An expected failure covers these only where its entry names the outcome."""


class Level(StrEnum):
    """How binding a requirement is; only MUSTs count for the verdict."""

    MUST = "MUST"
    SHOULD = "SHOULD"


class Refusal(StrEnum):
    """The latest moment at which a requirement accepts a refusal."""

    AT_ATTACHMENT = "at attachment"
    BEFORE_ANY_CHANGE = "before any change"
    LATE = "late"


class Compared(StrEnum):
    """What differed between a run and the standard loop."""

    PARAMETERS = "parameters"
    BUFFERS = "buffers"
    GRADIENTS = "gradients"
    STATES = "optimizer states"
    RANKS = "parameters of two ranks"
    ERROR = "an error of the implementation alone"
    AFTER_REFUSAL = "parameters after a refused attachment, and a backward"
    STANDARD_ERROR = "an error of the standard loop alone"


@dataclass(frozen=True)
class Difference:
    """Where a run differs from the standard loop.

    Attributes:
        compared: what differs.
        event: the index of the event after which it differs; None if unknown, or outside a plan.
        never_stopped: whether it is from the standard loop without the save and load of the plan.
        refusal: the message of a raised RuntimeError, TypeError or ValueError, on one line; empty if none was raised.
    """

    compared: Compared
    event: int | None = None
    refusal: str = ""
    never_stopped: bool = False


@dataclass(frozen=True)
class Finding:
    """The outcome of one comparison or check.

    Attributes:
        outcome: the outcome.
        detail: the explanation, on one line.
        passed: whether the requirement accepts it.
        difference: where the run differs from the standard loop; None if it does not, or no plan was run.
    """

    outcome: Outcome
    detail: str = ""
    passed: bool = True
    difference: Difference | None = None


CONFORMS = Finding(Outcome.CONFORMS)


class BrokenPromise(AssertionError):
    """Raised when a case does not pass, with its finding, and the plan that shows it if there is one."""

    def __init__(self, finding: Finding, plan: Plan | None = None) -> None:
        super().__init__(f"{finding.outcome}: {finding.detail}")
        self.finding = finding
        self.plan = plan


class NotOffered(NotImplementedError):
    """Raised by any call of an adapter when its implementation does not offer what is asked for."""


class NotRun(RuntimeError):
    """Raised when this machine cannot run the case; the message says why."""


class OutOfTime(BaseException):
    """Raised when a case exceeds its time limit; a BaseException, so that `except Exception` does not catch it."""
