"""The record of a run: what came of each case and requirement, and the JSON Lines file that keeps it."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

from inbackward_conformance import SPEC_VERSION
from inbackward_conformance.outcome import Level, Outcome
from inbackward_conformance.specification import Requirement, specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class CaseRecord:
    """What one case came to.

    Attributes:
        drawn: how many plans Hypothesis drew for it.
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
    drawn: int = 0


@dataclass(frozen=True)
class RequirementRecord:
    """What one requirement came to: the worst of its cases.

    Attributes:
        expected: whether everything that failed in it was expected to.
        ran: whether all of it ran: no case was `not run`, and not all were `not offered`, but where the requirement is
            about an optional call.
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


def summarize(implementation: str, cases: Iterable[CaseRecord], applicable: Iterable[str]) -> list[RequirementRecord]:
    """Return the requirements that ran, and as `not run` the `applicable` ones that did not, in the spec's order."""
    by_requirement: dict[str, list[CaseRecord]] = {name: [] for name in applicable}
    for case in cases:
        by_requirement.setdefault(case.requirement, []).append(case)
    order = {name: number for number, name in enumerate(specification())}
    return [
        _summarize_requirement(implementation, specification()[name], by_requirement[name])
        for name in sorted(by_requirement, key=order.__getitem__)
    ]


def _summarize_requirement(
    implementation: str, requirement: Requirement, cases: Sequence[CaseRecord]
) -> RequirementRecord:
    failed = [case for case in cases if not case.passed]
    return RequirementRecord(
        implementation=implementation,
        requirement=requirement.id,
        level=requirement.level,
        outcome=Outcome.worst(case.outcome for case in cases),
        passed=bool(cases) and not failed,
        expected=bool(failed) and all(case.expected for case in failed),
        text=requirement.text,
        cases=len(cases),
        ran=_ran(requirement, [case.outcome for case in cases]),
    )


def _ran(requirement: Requirement, outcomes: Sequence[Outcome]) -> bool:
    if not outcomes or Outcome.NOT_RUN in outcomes:
        return False
    return bool(requirement.needs) or set(outcomes) != {Outcome.NOT_OFFERED}


def verdict(requirements: Iterable[RequirementRecord]) -> str:
    """Return `conformant`, `not conformant` or `incomplete`, from the MUSTs alone."""
    musts = [requirement for requirement in requirements if requirement.level == Level.MUST]
    if any(not must.passed and must.outcome is not Outcome.NOT_RUN for must in musts):
        return "not conformant"
    if not musts or any(not must.ran for must in musts):
        return "incomplete"
    return "conformant"


def count(requirements: Iterable[RequirementRecord]) -> dict[str, int]:
    """Count requirements by outcome."""
    counted = Counter(requirement.outcome for requirement in requirements)
    return {outcome.value: counted[outcome] for outcome in reversed(Outcome)}


class RecordFile:
    """Writes the record line by line; a file without its footer is of a run that died."""

    def __init__(self, file: TextIO, *, device: str, seed: int, profile: str) -> None:
        self._file = file
        self._write(
            "header",
            spec=SPEC_VERSION,
            torch=version("torch"),
            python=platform.python_version(),
            device=device,
            seed=seed,
            profile=profile,
        )

    def write_case(self, case: CaseRecord) -> None:
        """Write one case as soon as it is known."""
        self._write("case", **asdict(case))

    def finish(self, results: dict[str, list[RequirementRecord]], *, selection: str) -> None:
        """Write the requirements, then the footer; `selection` says what was run."""
        for requirements in results.values():
            for requirement in requirements:
                self._write("requirement", **asdict(requirement))
        footer = {name: {"verdict": verdict(found), **count(found)} for name, found in results.items()}
        self._write("footer", implementations=footer, selection=selection)
        self._file.close()

    def _write(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")
        self._file.flush()
