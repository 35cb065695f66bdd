"""What a run prints at its end, from records alone; `test_session` has it from runs."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from expecttest import assert_expected_inline

from inbackward_conformance.outcome import Outcome
from inbackward_conformance.report.record import CaseRecord, summarize
from inbackward_conformance.report.terminal import summary_lines
from inbackward_conformance.specification import specification
from records import case

LONG = "parameter 'first' differs from the standard loop after event 1, Backward(): " * 6


def summary(*cases: CaseRecord, verbosity: int = 0, width: int = 80, **rounding: Any) -> str:
    results = {"mine": summarize("mine", cases, [], "cpu")}
    return "\n".join(
        line for line, _ in summary_lines(results, cases, rounding=rounding, verbosity=verbosity, width=width)
    )


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
mine: not conformant (MUST 1 of 3 kept, 2 broken; SHOULD 0 of 1 kept, 1 broken; 4 cases)""",
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
mine: not conformant (MUST 0 of 2 kept, 2 broken; 2 cases)""",
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
mine: not conformant (MUST 0 of 2 kept, 2 broken; 2 cases)""",
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
mine: not conformant (MUST 0 of 2 kept, 2 broken; 3 cases)""",
    )
    verbose = summary(*cases, verbosity=1)
    assert all(f"    script: {each.script}" in verbose for each in cases)


def test_the_ranks_that_were_given_come_first() -> None:
    cases = (case("mine", "ddp/buffers", "conforms"),)
    lines = summary_lines(
        {"mine": summarize("mine", cases, [], "cpu")}, cases, rounding={}, verbosity=-1, ranks="on 64 ranks of torchrun"
    )
    assert [line for line, _ in lines] == ["on 64 ranks of torchrun", "mine: conformant (MUST 1 of 1 kept; 1 cases)"]


def test_what_is_not_offered_keeps_no_promise() -> None:
    assert_expected_inline(
        summary(case("mine", "lifetime/detached", "not offered"), case("mine", "listing/order", "conforms")),
        """\
mine
  lifetime              0 of  1 kept   1 not offered
  listing               1 of  1 kept
mine: conformant (MUST 0 of 1 kept, 1 not offered; SHOULD 1 of 1 kept; 2 cases)""",
    )


def test_one_cause_is_told_once() -> None:
    """Wherever it was raised; `-v` shows each."""
    cases = (
        failing("attachment/groups", name="SGD", detail="event 0, Attach() raises AssertionError: no CUDA"),
        failing("attachment/groups", name="AdamW", detail="event 1, Attach() raises AssertionError: no CUDA"),
        failing("sharing/two_names", detail="apply raises AssertionError: no CUDA"),
        failing("sharing/listed_twice", detail="apply raises ValueError: another"),
        failing("state/resume", detail="no CUDA"),
        failing("ddp/join", detail="rank 1: attach raises AssertionError: no CUDA"),
        failing("ddp/buffers", detail="rank 0: event 3, Join((2, 4)) raises AssertionError: no CUDA"),
        failing("ddp/no_sync", detail="apply raises AssertionError: no CUDA"),
        failing("listing/order", detail="apply raises AssertionError: no CUDA"),
    )
    assert_expected_inline(
        summary(*cases),
        """\
mine
  MUST fails: attachment/groups[SGD] and 5 more requirements, 7 cases
    event 0, Attach() raises AssertionError: no CUDA
    also ddp/no_sync, ddp/buffers, ddp/join and 2 more
  MUST fails: sharing/listed_twice
    apply raises ValueError: another
  MUST fails: state/resume
    no CUDA
  attachment            0 of  1 kept   1 fails
  ddp                   0 of  3 kept   3 fails
  listing               0 of  1 kept   1 fails
  sharing               0 of  2 kept   2 fails
  state                 0 of  1 kept   1 fails
mine: not conformant (MUST 0 of 7 kept, 7 broken; SHOULD 0 of 1 kept, 1 broken; 9 cases)""",
    )
    assert summary(*cases, verbosity=1).count("no CUDA") == 7


def test_the_counts_add_up() -> None:
    """A requirement some of whose cases were not offered is kept in part; a refusal that passes keeps it."""
    assert_expected_inline(
        summary(
            case("mine", "sharing/two_names", "conforms"),
            case("mine", "sharing/listed_twice", "conforms", name="SGD"),
            case("mine", "sharing/listed_twice", "not offered", name="AdamW"),
            failing("sharing/used_twice"),
            case("mine", "sharing/listed_twice_with_state", "not offered"),
            case("mine", "equivalence/closure", "refuses"),
        ),
        """\
mine
  MUST fails: sharing/used_twice
    why
  equivalence           1 of  1 kept, 1 by refusing
  sharing               1 of  4 kept   1 fails, 1 in part, 1 not offered
mine: not conformant (MUST 2 of 5 kept, 1 broken, 1 in part, 1 not offered; 6 cases)""",
    )


def test_why_nothing_was_run_is_told_once() -> None:
    why = {"detail": "it requires cuda, and the run is on cpu"}
    cases = [case("mine", name, "not run", **why) for name in ("sharing/two_names", "state/resume", "state/resume")]
    assert_expected_inline(
        summary(*cases, mine={"size": 1e-6, "reason": "sums have another order"}),
        """\
mine
  sharing               0 of  1 kept   1 not run
  state                 0 of  1 kept   1 not run
  not run: it requires cuda, and the run is on cpu (2 requirements)
mine: incomplete (MUST 0 of 2 kept, 2 not run; 3 cases) to 1e-06 of the largest value (sums have another order)""",
    )


def test_a_summary_is_short_unless_verbose() -> None:
    """Whatever fails, and however much there is to say of it: a line for each chapter, and a page beside."""
    cases = [failing(name, detail=f"{name}: {LONG}") for name in specification()]
    chapters = {requirement.chapter for requirement in specification().values()}
    assert len(summary(*cases).splitlines()) < len(chapters) + 55
    assert f"  and {len(specification()) - 12} more; -v shows all" in summary(*cases)
    verbose = summary(*cases, verbosity=1)
    assert all(f"fails: {name}" in verbose for name in specification())
    assert "[…]" not in verbose


def test_it_fits_into_80_columns() -> None:
    cases = [failing(name, outcome, detail=LONG) for name, outcome in zip(specification(), cycle(Outcome))]
    assert max(map(len, summary(*cases).splitlines()[:-1])) <= 80  # the verdict is one line, for those who search
