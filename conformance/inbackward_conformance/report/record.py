"""The record of a run: the results of cases and requirements, and the JSON Lines file that holds them."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

from inbackward_conformance.outcome import Compared, Difference, Level, Outcome
from inbackward_conformance.specification import SPEC_VERSION, Requirement, specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class CaseRecord:
    """The result of one case.

    Attributes:
        drawn: the number of plans that Hypothesis drew.
        expected: whether it failed as expected.
        difference: where a failed case differs from the standard loop; None outside a run of a plan.
        plan: the last plan that a failed case ran, as the expression that builds it.
        arguments: the arguments of a case that failed without a plan, as source code.
        script: the path of the script that reproduces the failure, if scripts were written.
        script_ends: how that script ends, if otherwise than the record says.
    """

    implementation: str
    requirement: str
    case: str
    level: str
    outcome: Outcome
    passed: bool
    detail: str = ""
    seconds: float = 0.0
    expected: bool = False
    plan: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    script: str = ""
    script_ends: str = ""
    drawn: int = 0
    difference: Difference | None = None

    def __str__(self) -> str:
        """Return the result on one line."""
        case = f"[{self.case}]" if self.case else ""
        return f"{self.requirement}{case} {self.outcome}{f': {self.detail}' if self.detail else ''}"

    @classmethod
    def load(cls, values: dict[str, Any]) -> CaseRecord:
        """Return the case with these JSON values."""
        if (difference := values.get("difference")) is not None:
            difference = Difference(**{**difference, "compared": Compared(difference["compared"])})
        return cls(**{**values, "outcome": Outcome(values["outcome"]), "difference": difference})


@dataclass(frozen=True)
class RequirementRecord:
    """The result of one requirement: the worst of its cases.

    Attributes:
        expected: whether all its failures were expected.
        ran: whether it ran completely: no case was `not run`, and not all were `not offered` unless it tests an
            optional call.
        applies: whether torch has the tested feature on this device; if not, it does not count for the verdict.
    """

    implementation: str
    requirement: str
    level: str
    outcome: Outcome
    passed: bool
    expected: bool
    text: str
    cases: int
    ran: bool
    applies: bool


def summarize(
    implementation: str, cases: Iterable[CaseRecord], applicable: Iterable[str], device: str
) -> list[RequirementRecord]:
    """Return the results of requirements that ran and, as `not run`, of other `applicable` ones, in their order."""
    by_requirement: dict[str, list[CaseRecord]] = {name: [] for name in applicable}
    for case in cases:
        by_requirement.setdefault(case.requirement, []).append(case)
    order = {name: number for number, name in enumerate(specification())}
    return [
        _summarize_requirement(implementation, specification()[name], by_requirement[name], device)
        for name in sorted(by_requirement, key=order.__getitem__)
    ]


def _summarize_requirement(
    implementation: str, requirement: Requirement, cases: Sequence[CaseRecord], device: str
) -> RequirementRecord:
    failed = [case for case in cases if not case.passed]
    return RequirementRecord(
        implementation=implementation,
        requirement=requirement.id,
        level=requirement.level,
        outcome=Outcome.worst(case.outcome for case in cases),
        passed=any(case.outcome is not Outcome.NOT_RUN for case in cases) and not failed,
        expected=bool(failed) and all(case.expected for case in failed),
        text=requirement.text,
        cases=len(cases),
        ran=_ran(requirement, [case.outcome for case in cases]),
        applies=requirement.applies_to(device),
    )


def _ran(requirement: Requirement, outcomes: Sequence[Outcome]) -> bool:
    if not outcomes or Outcome.NOT_RUN in outcomes:
        return False
    return bool(requirement.needs) or set(outcomes) != {Outcome.NOT_OFFERED}


def verdict(requirements: Iterable[RequirementRecord]) -> str:
    """Return `conformant`, `not conformant` or `incomplete`, from the MUSTs that apply to the device."""
    musts = [must for must in requirements if must.level == Level.MUST and must.applies]
    if any(not must.passed and must.outcome is not Outcome.NOT_RUN for must in musts):
        return "not conformant"
    if not musts or any(not must.ran for must in musts):
        return "incomplete"
    return "conformant"


def count(requirements: Iterable[RequirementRecord]) -> dict[str, int]:
    """Count requirements by outcome."""
    counts = Counter(requirement.outcome for requirement in requirements)
    return {outcome.value: counts[outcome] for outcome in reversed(Outcome)}


def kept(requirement: RequirementRecord) -> bool:
    """Return whether the requirement was tested and passed; one that is `not offered` is not kept."""
    return requirement.passed and requirement.outcome not in {Outcome.NOT_OFFERED, Outcome.NOT_RUN}


class RecordFile:
    """Writes the record line by line; the record of an incomplete run has no footer."""

    def __init__(self, file: TextIO, versions: dict[str, str], *, device: str, seed: int, profile: str) -> None:
        """Write the header; `versions` holds the distribution of each implementation, with its version."""
        self._file = file
        self._write(
            "header",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            spec=SPEC_VERSION,
            inbackward=version("inbackward"),
            torch=version("torch"),
            python=platform.python_version(),
            device=device,
            seed=seed,
            profile=profile,
            versions=versions,
        )

    def write_case(self, case: CaseRecord) -> None:
        """Write one case."""
        self._write("case", **asdict(case))

    def finish(self, results: dict[str, list[RequirementRecord]], *, selection: str, whole: bool) -> None:
        """Write the requirements, then the footer.

        Args:
            results: the requirements, by implementation.
            selection: a description of what was run.
            whole: whether all cases of its chapters were selected.
        """
        for requirements in results.values():
            for requirement in requirements:
                self._write("requirement", **asdict(requirement))
        footer = {name: {"verdict": verdict(records), **count(records)} for name, records in results.items()}
        self._write("footer", implementations=footer, selection=selection, whole=whole)
        self._file.close()

    def _write(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")
        self._file.flush()
