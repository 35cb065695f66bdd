"""Holds an implementation to a plan: two runs, one comparison, and a finding."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inbackward_conformance.checking.standard_runs import StandardRuns
from inbackward_conformance.outcome import CONFORMS, BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.ranks.on_ranks import run_both, run_observed, run_standard
from inbackward_conformance.training.compare import compare, difference
from inbackward_conformance.training.compare_ranks import compare_ranks
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.lockstep import Lockstep
from inbackward_conformance.training.standard_loop import unusable_plan_error
from inbackward_conformance.training.trace import PLAN_ERRORS, Raised, take_snapshot
from inbackward_conformance.training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.ranks.on_ranks import OnRanks
    from inbackward_conformance.specification import Requirement
    from inbackward_conformance.training.trace import Trace


class Check:
    """What a requirement calls with its plans.

    Attributes:
        findings: what came of each plan that passed.
        plan: the last one that was train; None: the requirement is no train of a plan.
    """

    def __init__(
        self,
        implementation: Implementation,
        requirement: Requirement,
        device: str,
        seed: int = 0,
        *,
        ranks: OnRanks | None = None,
        standard_runs: StandardRuns | None = None,
        about_to_run: Callable[[Plan], None] = lambda _: None,
    ) -> None:
        self.findings: list[Finding] = []
        self.plan: Plan | None = None
        self._implementation = implementation
        self._requirement = requirement
        self._device = device
        self._seed = seed
        self._ranks = ranks
        self._standard_runs = standard_runs or StandardRuns()
        self._about_to_run = about_to_run

    def __call__(self, plan: Plan, *, standard_may_raise: bool = False) -> None:
        """Run `plan` by the standard loop and by the implementation, and compare the traces.

        Where the standard loop raises, the implementation has to raise at the same event. A plan that does not mean to
        show that proves nothing, so `standard_may_raise` must say that it does; a name of something that is not
        there, such as a parameter that the model does not have, is always a mistake of the plan.

        Raises:
            BrokenPromise: the implementation is not equal, and did not refuse where it may.
            NotOffered: the standard loop raised, unforeseen, with an optimizer class of the implementation's own.
            RuntimeError: it raised with one of torch's.
        """
        plan = replace(plan, seed=plan.seed + self._seed)
        self._begin(plan)
        try:
            finding = self._on_ranks(plan, standard_may_raise) if plan.ranks else self._here(plan, standard_may_raise)
        except BrokenPromise as error:  # of a rank that hangs or died
            error.plan = plan
            raise
        if not finding.passed:
            raise BrokenPromise(finding, plan)
        self.findings.append(finding)

    def lockstep(self, plan: Plan) -> Lockstep:
        """Return what a plan begins with, by both ways, for events that are not known beforehand."""
        return Lockstep(replace(plan, seed=plan.seed + self._seed), self._implementation, self._device, self._begin)

    def on_ranks(self, world_size: int, body: Callable[..., None], *arguments: Any) -> None:
        """Call `body(rank, name, *arguments)` on each of so many ranks; `name` is that of the implementation.

        For what is not a train of a plan. `body` is a function of a module; what it raises is judged as in any case.

        Raises:
            BrokenPromise: it was raised on a rank, or a rank hangs or died.
        """
        self._call_on_ranks(world_size, body, *arguments)
        self.findings.append(CONFORMS)

    def _begin(self, plan: Plan) -> None:
        self.plan = plan
        self._about_to_run(plan)

    def _here(self, plan: Plan, standard_may_raise: bool) -> Finding:
        standard = self._standard_runs.here(plan, self._implementation, self._device)
        if standard.raised and (not standard_may_raise or standard.raised.text.startswith(PLAN_ERRORS)):
            raise unusable_plan_error(self._implementation, plan, standard.raised)
        observed = train(plan, InBackward(self._implementation), self._device)
        return compare(standard, observed, self._requirement.may_refuse)

    def _on_ranks(self, plan: Plan, standard_may_raise: bool) -> Finding:
        assert plan.ranks
        size = plan.ranks.world_size
        if standard := self._standard_runs.remembered(plan, self._implementation):
            observed = self._call_on_ranks(size, run_observed, plan)
            return compare_ranks(standard, observed, self._requirement.may_refuse, plan.ranks.tolerance)
        try:
            traces: list[tuple[Trace, Trace]] = self._call_on_ranks(size, run_both, plan)
        except BrokenPromise:
            # Else the implementation would be blamed for what the standard loop does. Where ranks cannot be replaced
            # nobody can tell.
            with suppress(NotRun):
                self._run_standard_alone(plan)
            raise
        standard, observed = map(list, zip(*traces, strict=True))
        raised = next((trace.raised for trace in standard if trace.raised), None)
        if raised and (not standard_may_raise or raised.text.startswith(PLAN_ERRORS)):
            raise unusable_plan_error(self._implementation, plan, raised)
        if raised:  # and nothing was run after it
            observed = self._call_on_ranks(size, run_observed, plan)
        else:
            self._standard_runs.remember(plan, self._implementation, standard)
        return compare_ranks(standard, observed, self._requirement.may_refuse, plan.ranks.tolerance)

    def _run_standard_alone(self, plan: Plan) -> None:
        assert plan.ranks
        try:
            self._call_on_ranks(plan.ranks.world_size, run_standard, plan)
        except BrokenPromise as error:
            raise RuntimeError(f"the plan proves nothing, the standard loop itself: {error}") from error

    def _call_on_ranks(self, world_size: int, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        if self._ranks is None:
            raise NotRun(f"{world_size} ranks are needed, and this train has none")
        return self._ranks.call(world_size, call, *arguments)

    @contextmanager
    def rejected(self, model: nn.Module, what: str, as_in: Callable[[], object] | None = None) -> Iterator[None]:
        """Demand that the body of the with statement raises a clear error, and leaves `model` as it was, unattached.

        For bad input, which the standard loop rejects as well; `what` says what the input is. `as_in` gives the same
        input to torch: the error that it raises there is as good as a clear one.

        Raises:
            BrokenPromise: nothing is raised, an accident is, or something has changed.
        """
        before = take_snapshot(what, model, None)
        listed = _listed(self._implementation, model)
        try:
            yield
        except NotOffered:
            raise
        except Exception as error:
            raised = Raised.observe(error, what, attaching=1)
            if raised.accidental and raised.text != _error_of(as_in):
                raise _broken(f"an accident, not a clear error, for {what}: {raised.text}") from error
        else:
            raise _broken(f"{what} is accepted")
        if changed := difference(before, take_snapshot(what, model, None)):
            raise BrokenPromise(changed)
        if _listed(self._implementation, model) != listed:
            raise _broken(f"{what} is rejected, but something is attached")
        self.findings.append(CONFORMS)


def _error_of(call: Callable[[], object] | None) -> str:
    try:
        if call:
            call()
    except Exception as error:  # noqa: BLE001 (torch raises what it likes)
        return Raised.observe(error, "", attaching=1).text
    return ""


@contextmanager
def must_not_raise(what: str) -> Iterator[None]:
    """Demand that the body of the with statement raises nothing; `what` says what it does.

    For what an attachment can break though no call of the implementation is in it: a copy, a file, a plain backward.

    Raises:
        BrokenPromise: something is raised.
    """
    try:
        yield
    except (BrokenPromise, NotOffered):
        raise
    except Exception as error:
        raise _broken(f"{what} raises {Raised.observe(error, what, attaching=0).text}") from error


def _listed(implementation: Implementation, model: nn.Module) -> list[int] | None:
    try:
        return [id(optimizer) for optimizer in implementation.optimizers(model)]
    except NotOffered:
        return None


def _broken(detail: str) -> BrokenPromise:
    return BrokenPromise(Finding(Outcome.FAILS, detail, passed=False))
