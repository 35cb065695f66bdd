"""What a run prints at its end, from records alone; `test_session` has it from runs."""

from __future__ import annotations

from itertools import cycle

from expecttest import assert_expected_inline

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.record import CaseRecord, summarize
from inbackward_conformance.report.terminal import summary_lines
from inbackward_conformance.specification import specification
from records import case

LONG = "parameter 'first' differs from the standard loop after event 1, Backward(): " * 6


def summary(*cases: CaseRecord, verbosity: int = 0, width: int = 80) -> str:
    results = {"mine": summarize("mine", cases, [], "cpu")}
    return "\n".join(line for line, _ in summary_lines(results, cases, verbosity=verbosity, width=width))


def failing(
    requirement: str, outcome: str = "fails", *, expected: bool = False, detail: str = "why", **values: str
) -> CaseRecord:
    return case("mine", requirement, outcome, detail=detail, expected=expected, **values)


def test_musts_and_the_worst_come_first() -> None:
    assert_expected_inline(
        summary(
            failing("hazards/checkpoint_of_detached_use", "crashes"),
            failing("attachment/groups", "fails"),
            failing("sharing/two_names", "diverges"),
            case("mine", "sharing/listed_twice", "conforms"),
        ),
        """\
mine
  MUST diverges: sharing/two_names
    why
  MUST fails: attachment/groups
    why
  SHOULD crashes: hazards/checkpoint_of_detached_use
    why
  attachment            0 of  1 kept   1 fails
  hazards               0 of  1 kept   1 crashes
  sharing               1 of  2 kept   1 diverges
mine: not conformant (MUST 1 of 3, SHOULD 0 of 1 kept, 4 cases)""",
    )


def test_expected_failures_are_counted() -> None:
    cases = (failing("attachment/groups", expected=True), failing("sharing/two_names", "diverges"))
    assert_expected_inline(
        summary(*cases),
        """\
mine
  MUST diverges: sharing/two_names
    why
  1 failed as expected; -v shows them
  attachment            0 of  1 kept   1 fails
  sharing               0 of  1 kept   1 diverges
mine: not conformant (MUST 0 of 2 kept, 2 cases)""",
    )
    assert_expected_inline(
        summary(*cases, verbosity=1),
        """\
mine
  MUST diverges: sharing/two_names
    why
  MUST fails as expected: attachment/groups
    why
  attachment            0 of  1 kept   1 fails
  sharing               0 of  1 kept   1 diverges
mine: not conformant (MUST 0 of 2 kept, 2 cases)""",
    )


def test_scripts_are_named_where_they_are_told_of() -> None:
    cases = (
        failing("attachment/groups", name="SGD", script="out/groups-SGD.py"),
        failing("attachment/groups", name="AdamW", script="out/groups-AdamW.py"),
        failing("sharing/two_names", expected=True, script="none: something has no source"),
    )
    assert_expected_inline(
        summary(*cases),
        """\
mine
  MUST fails: attachment/groups[SGD] and 1 more
    why
    script: out/groups-SGD.py
  1 failed as expected; -v shows them
  scripts of 2 cases in out; -v names each
  no script of 1 cases; -v says why
  attachment            0 of  1 kept   1 fails
  sharing               0 of  1 kept   1 fails
mine: not conformant (MUST 0 of 2 kept, 3 cases)""",
    )
    verbose = summary(*cases, verbosity=1)
    assert all(f"    script: {each.script}" in verbose for each in cases)


def test_what_is_not_offered_keeps_no_promise() -> None:
    assert_expected_inline(
        summary(case("mine", "lifetime/detached", "not offered"), case("mine", "listing/order", "conforms")),
        """\
mine
  lifetime              0 of  1 kept   1 not offered
  listing               1 of  1 kept
mine: conformant (MUST 0 of 1, SHOULD 1 of 1 kept, 2 cases)""",
    )


def test_a_summary_is_short_unless_verbose() -> None:
    """Whatever fails, and however much there is to say of it."""
    cases = [failing(name, detail=LONG) for name in specification()]
    assert len(summary(*cases).splitlines()) < 80
    assert f"  and {len(specification()) - 12} more; -v shows all" in summary(*cases)
    verbose = summary(*cases, verbosity=1)
    assert all(f"fails: {name}" in verbose for name in specification())
    assert "[…]" not in verbose


def test_it_fits_into_80_columns() -> None:
    cases = [failing(name, outcome, detail=LONG) for name, outcome in zip(specification(), cycle(Outcome))]
    assert max(map(len, summary(*cases).splitlines())) <= 80
