"""What a check says of nested states and of rounding, and the scripts that reproduce it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import deep_states
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import BrokenPromise, Compared, Difference, Finding, Outcome
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, Load, Save
from inbackward_conformance.repro.failure import Failure
from inbackward_conformance.repro.reproduce import source_of_failure
from inbackward_conformance.specification import specification
from inbackward_conformance.training.compare_ranks import compare_ranks
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.side_by_side import SideBySide
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.trace import Trace
from inbackward_conformance.training.train import train
from test_repro import outcomes_of

STEPS = (Backward(),) * 3
NESTED = Plan("MLP", (Assignment("deep_states:NestedSGD", {"lr": 0.1}),), STEPS)
SGD = Assignment("SGD", {"lr": 0.1, "momentum": 0.9})
MOMENTUM = Plan("MLP", (SGD,), STEPS)
GUARDED = Plan("MLP", (Assignment("deep_states:GuardedSGD", {"lr": 0.1}),), STEPS)
PARTLY = replace(MOMENTUM, assignments=(replace(SGD, params=("0.weight",)),))
DIFFERS = r"diverges: parameter '\d\.\w+' differs"


def check_of(target: Any) -> Check:
    return Check(Implementation(target), specification()["gradients/freed"], "cpu")


def findings(target: Any, plan: Plan = MOMENTUM) -> list[Finding]:
    """Return the findings of a run of a plan, and of the same events one by one."""
    check = check_of(target)
    check(plan)
    lockstep = check.lockstep(plan)
    lockstep.attach()
    for event in plan.events:
        lockstep.execute(event)
    return check.findings


def test_nested_states_are_compared() -> None:
    assert [finding.outcome for finding in findings(deep_states.Nested)] == [Outcome.CONFORMS]
    told = r"state of '0.weight' differs .* event 1, Backward\(\): 'left'\['buffers'\]\[0\]: largest difference 0.001"
    with pytest.raises(BrokenPromise, match=told):
        findings(deep_states.Distorts)


def test_what_cannot_be_compared_is_not_run() -> None:
    """By either way of running a plan, and not if the adapter says what can be compared."""
    told = (
        "optimizer state of '0.weight' after event 1, Backward(): 'guard' is a dict of objects, which have "
        "no order, so it cannot be compared; let `state_of` of the adapter return what can"
    )
    first, *others = findings(deep_states.Guarded)
    assert first == Finding(Outcome.NOT_RUN, told)
    assert [finding.outcome for finding in others] == [Outcome.NOT_RUN] * len(STEPS)
    assert [finding.outcome for finding in findings(deep_states.GuardedAndTold)] == [Outcome.CONFORMS]


def test_what_cannot_be_compared_after_a_checkpoint_is_not_run() -> None:
    plan = replace(MOMENTUM, events=(Backward(), Save(), Load(), Backward()))
    check = check_of(deep_states.Guarded)
    check(plan, never_stopped=replace(MOMENTUM, events=(Backward(), Backward())))
    assert [finding.outcome for finding in check.findings] == [Outcome.NOT_RUN]


def test_what_cannot_be_compared_on_ranks_is_not_run() -> None:
    """Unless the ranks differ from each other."""
    implementation = Implementation(deep_states.Guarded)
    standard, observed = (train(GUARDED, method(implementation)) for method in (StandardLoop, InBackward))
    finding = compare_ranks([standard] * 2, [observed] * 2)
    assert (finding.outcome, finding.passed) == (Outcome.NOT_RUN, True)
    assert finding.detail.startswith("rank 0: optimizer state of '0.weight'")
    last = observed.snapshots[-1]
    moved = replace(last, params=last.params | {"0.weight": last.params["0.weight"] + 1e-4})
    apart = compare_ranks(
        [standard] * 2, [observed, Trace(observed.start, [*observed.snapshots[:-1], moved])], None, 0.1
    )
    assert apart.outcome is Outcome.DIVERGES
    assert "'0.weight' differs between rank 0 and rank 1" in apart.detail


def test_a_difference_beside_what_cannot_be_compared_is_told() -> None:
    with pytest.raises(BrokenPromise, match=r"diverges: .* 'left'\['buffers'\]\[0\]: largest difference 0.001"):
        check_of(deep_states.GuardedAndDistorted)(MOMENTUM)


def test_a_declared_rounding_passes_and_no_more() -> None:
    assert [finding.outcome for finding in findings(deep_states.Rounds)] == [Outcome.CONFORMS]
    for target in (deep_states.Inexact, deep_states.RoundsTooMuch):
        with pytest.raises(BrokenPromise, match=DIFFERS):
            check_of(target)(MOMENTUM)
        lockstep = check_of(target).lockstep(MOMENTUM)
        lockstep.attach()
        with pytest.raises(BrokenPromise, match=DIFFERS):
            lockstep.execute(Backward())


@pytest.mark.parametrize(("target", "passes"), [("Inexact", False), ("Rounds", True), ("RoundsTooMuch", False)])
def test_a_declared_rounding_passes_in_functional_optimizers(target: str, passes: bool) -> None:
    implementation = Implementation(getattr(deep_states, target))
    both = SideBySide(implementation, "SGD", {"lr": 0.1, "momentum": 0.9}, "cpu")
    with nullcontext() if passes else pytest.raises(BrokenPromise, match="parameter 0 differs"):
        both.feed(both.draw())


def failure_of(compared: Compared, plan: Plan) -> Failure:
    where = Difference(compared, len(plan.events))
    return Failure("", specification()["gradients/freed"], "", "diverges", "", where, plan)


def failure_without_plan(requirement: str, **arguments: str) -> Failure:
    return Failure("", specification()[requirement], "", "diverges", "", arguments=arguments)


SCRIPTS = {
    "nested states": (failure_of(Compared.STATES, NESTED), "Nested", "Distorts"),
    "nested states without a plan": (
        failure_without_plan("state/from_standard", assignment="Assignment('SGD', {'lr': 0.1})"),
        "Nested",
        "Distorts",
    ),
    "parameters": (failure_of(Compared.PARAMETERS, MOMENTUM), "Rounds", "RoundsTooMuch"),
    "buffers": (failure_of(Compared.BUFFERS, replace(MOMENTUM, model="Convolution")), "Rounds", "RoundsTooMuch"),
    "gradients": (failure_of(Compared.GRADIENTS, PARTLY), "Rounds", "RoundsTooMuch"),
    "states": (failure_of(Compared.STATES, MOMENTUM), "Rounds", "RoundsTooMuch"),
    "functional": (
        failure_without_plan("functional/default_options", optimizer="'SGD'", one_by_one="True"),
        "Rounds",
        "RoundsTooMuch",
    ),
}
"""What failed, a sound implementation, and one for which the script has to say so."""

TOLD = {
    "nested states": "0.weight[0]['left']['buffers'][0]: Tensor-likes are not equal!",
    "nested states without a plan": "['left']['buffers'][0]: Tensor-likes are not equal!",
    "parameters": "0.weight: Tensor-likes are not close!",
    "buffers": "1.running_mean: Tensor-likes are not close!",
    "gradients": "0.bias: Tensor-likes are not close!",
    "states": "0.weight momentum_buffer: Tensor-likes are not close!",
    "functional": "Tensor-likes are not close!",
}


def test_scripts_compare_as_checks_do(tmp_path: Path) -> None:
    """Nested states by the same paths, and everything to the declared rounding."""
    paths = []
    for name, (failure, *implementations) in SCRIPTS.items():
        for implementation in implementations:
            path = tmp_path / f"{name} {implementation}.py"
            path.write_text(source_of_failure(failure, f"deep_states:{implementation}"), encoding="utf-8")
            assert "inbackward_conformance" not in path.read_text(encoding="utf-8")
            paths.append(path)
    outcomes = iter(outcomes_of(paths, "--with", "inbackward_conformance"))
    for name in SCRIPTS:
        assert next(outcomes) == (0, ""), name
        status, output = next(outcomes)
        assert status == 1, name
        assert TOLD[name] in output, name
