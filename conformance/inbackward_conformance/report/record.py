"""The record of a run: the results of cases and requirements, and the JSON Lines file that holds them."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

from inbackward_conformance.compatibility import StrEnum
from inbackward_conformance.outcome import Compared, Difference, Level, Outcome
from inbackward_conformance.specification import SPEC_VERSION, Requirement, specification

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


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
        not_in_torch: whether this torch lacks what the case needs: it was not run, and its requirement is judged by the
            other cases.
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
    not_in_torch: bool = False

    @property
    def cause(self) -> str:
        """The detail without the place where the error was raised and the plan: cases of one cause differ in them."""
        return re.sub(r"^(rank \d+: )?(event \d+, .*?|\w+) raises |(, in|; drawn:) Plan\(.*", "", self.detail)

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


UNTESTED = frozenset({Outcome.NOT_OFFERED, Outcome.NOT_RUN})
"""The outcomes of cases that test nothing."""


class Standing(StrEnum):
    """How a requirement is counted: each has exactly one.

    `in part` is one of which some cases passed, and the others were not offered or not run.
    """

    KEPT = "kept"
    BROKEN = "broken"
    IN_PART = "in part"
    NOT_OFFERED = "not offered"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class RequirementRecord:
    """The result of one requirement: the worst of its cases.

    Attributes:
        expected: whether all its failures were expected.
        ran: whether it ran completely: no case was `not run`, and not all were `not offered` unless it tests an
            optional call.
        applies: whether it can be tested on this device, with the libraries that are installed; if not, it does not
            count for the verdict.
        tested: the number of its cases that were neither `not offered` nor `not run`.
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
    tested: int

    @property
    def standing(self) -> Standing:
        """What is said of it where requirements are counted."""
        if not self.passed and self.outcome is not Outcome.NOT_RUN:
            return Standing.BROKEN
        if self.outcome not in UNTESTED:
            return Standing.KEPT
        return Standing.IN_PART if self.tested else Standing(self.outcome)


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
    counted = [case for case in cases if not case.not_in_torch]
    in_torch = bool(counted) or not cases
    cases = counted or cases
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
        applies=requirement.applies_to(device) and in_torch,
        tested=sum(case.outcome not in UNTESTED for case in cases),
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


def standings(requirements: Iterable[RequirementRecord]) -> dict[str, int]:
    """Count requirements by standing."""
    counts = Counter(requirement.standing for requirement in requirements)
    return {standing.value: counts[standing] for standing in Standing}


def standings_by_level(requirements: Sequence[RequirementRecord]) -> dict[str, dict[str, int]]:
    """Count the requirements that apply to the device by level and standing."""
    applicable = [requirement for requirement in requirements if requirement.applies]
    return {level: standings(each for each in applicable if each.level == level) for level in Level}


def describe_rounding(rounding: Mapping[str, Any]) -> str:
    """Describe the rounding that an adapter declares."""
    return f"to {rounding['size']:g} of the largest value ({rounding['reason']})"


def reasons_not_run(requirements: Iterable[RequirementRecord], cases: Iterable[CaseRecord]) -> dict[str, int]:
    """Return why requirements were not run, with the number of requirements; those that torch lacks are left out."""
    missing = {each.requirement for each in requirements if _is_missed(each) and each.outcome is Outcome.NOT_RUN}
    told = {(case.detail, case.requirement) for case in cases if case.outcome is Outcome.NOT_RUN}
    counts = Counter(reason for reason, requirement in sorted(told) if requirement in missing)
    return dict(counts.most_common())


def _is_missed(requirement: RequirementRecord) -> bool:
    """Return whether another run on the same device could test a requirement."""
    known = specification().get(requirement.requirement)
    return requirement.applies or bool(known and known.extra)


class RecordFile:
    """Writes the record line by line; the record of an incomplete run has no footer."""

    def __init__(
        self,
        file: TextIO,
        versions: dict[str, str],
        *,
        device: str,
        seed: int,
        profile: str,
        optimizers: Mapping[str, Sequence[str]] | None = None,
        rounding: Mapping[str, Mapping[str, Any]] | None = None,
        world_size: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Write the header.

        Args:
            file: the file, open for writing.
            versions: the distribution of each implementation, with its version.
            device: the device.
            seed: the seed of the run.
            profile: the profile of drawn plans.
            optimizers: the own optimizer classes of each implementation that declares some.
            rounding: the `size` and `reason` of each implementation that declares a rounding.
            world_size: the number of ranks that the run was started on; None if it started them itself.
            dry_run: whether plans were only built, and not compared.
        """
        self._file = file
        self._write(
            "header",
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            spec=SPEC_VERSION,
            inbackward=version("inbackward"),
            torch=version("torch"),
            python=platform.python_version(),
            device=device,
            seed=seed,
            profile=profile,
            versions=versions,
            optimizers=optimizers or {},
            rounding=rounding or {},
            world_size=world_size,
            dry_run=dry_run,
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
        footer = {
            name: {"verdict": verdict(records), **count(records), "levels": standings_by_level(records)}
            for name, records in results.items()
        }
        self._write("footer", implementations=footer, selection=selection, whole=whole)
        self._file.close()

    def _write(self, kind: str, **values: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")
        self._file.flush()
