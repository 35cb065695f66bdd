"""Checks an implementation with a plan: two runs, one comparison, one finding."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inbackward_conformance import accelerator
from inbackward_conformance.binding import bind_plan
from inbackward_conformance.catalogue.build import is_of_a_library
from inbackward_conformance.checking.raising import rejection
from inbackward_conformance.checking.standard_runs import StandardRuns
from inbackward_conformance.outcome import CONFORMS, BrokenPromise, Finding, NotOffered, NotRun, Outcome
from inbackward_conformance.plan import Plan, Ranks
from inbackward_conformance.ranks.on_ranks import run_both, run_observed, run_standard
from inbackward_conformance.training.compare import compare, difference
from inbackward_conformance.training.compare_ranks import compare_ranks
from inbackward_conformance.training.in_backward import InBackward
from inbackward_conformance.training.lockstep import Lockstep
from inbackward_conformance.training.standard_loop import StandardLoop, unusable_plan_error
from inbackward_conformance.training.trace import PLAN_ERRORS, Raised
from inbackward_conformance.training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from inbackward_conformance.adapters.implementation import Implementation
    from inbackward_conformance.ranks.on_ranks import OnRanks
    from inbackward_conformance.specification import Requirement
    from inbackward_conformance.training.trace import Trace


TIMES_AGAIN = 3
"""How often the standard loop is run again where it may be the one that differs."""


SHARED_DEVICE = (
    "ranks that share an accelerator use Gloo, which cannot send tensors of it from rank to rank, nor gather them for "
    "tensor parallelism: run it where each rank has an accelerator"
)


class Check:
    """The fixture that a requirement calls with its plans.

    Attributes:
        findings: the finding of each plan that passed.
        plan: the last plan that was run; None if the requirement runs no plan.
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

    def __call__(self, plan: Plan, *, standard_may_raise: bool = False, never_stopped: Plan | None = None) -> None:
        """Run `plan` by the standard loop and by the implementation, and compare the traces.

        Needs of the plan are bound to optimizer classes first.

        If the standard loop raises, which only a plan with `standard_may_raise` may do, the implementation has to raise
        at the same event. A name of something that does not exist, such as a parameter that the model does not have, is
        always an error of the plan.

        `never_stopped` is the plan without its save and load: both must end alike.

        Raises:
            BrokenPromise: the implementation differs, and did not refuse where it may.
            NotOffered: the standard loop raised unexpectedly, with one of the implementation's own optimizer classes.
            RuntimeError: the standard loop raised unexpectedly, with one of torch's.
        """
        plan = self._bind(plan)
        self._begin(plan)
        try:
            if plan.ranks:
                finding = self._run_on_ranks(plan, standard_may_raise)
            else:
                finding = self._run(plan, standard_may_raise, self._bind(never_stopped) if never_stopped else None)
        except BrokenPromise as error:  # a rank hangs or has died
            error.plan = plan
            raise
        if not finding.passed:
            raise BrokenPromise(finding, plan)
        self.findings.append(finding)

    def lockstep(self, plan: Plan) -> Lockstep:
        """Return a run of the plan by both methods, for events that are not known beforehand."""
        return Lockstep(
            self._bind(plan),
            self._implementation,
            self._device,
            about_to_run=self._begin,
            not_compared=self.findings.append,
            diverged=self._require_repeatable,
        )

    def on_ranks(self, world_size: int, body: Callable[..., None], *arguments: Any, fixed: bool = False) -> None:
        """Call `body(rank, name, *arguments)` on each rank, with the name of the implementation.

        For requirements that are no run of a plan. `body` has to be a function at the top level of a module; its errors
        are classified as those of any case. On a larger cluster it is called on more ranks, as a plan is, unless it is
        `fixed`.

        Raises:
            BrokenPromise: `body` raised it on a rank, or a rank hangs or has died.
        """
        self._call_on_ranks(Ranks(world_size, fixed=fixed).scaled(self._scale).world_size, body, *arguments)
        self.findings.append(CONFORMS)

    def _bind(self, plan: Plan) -> Plan:
        plan = replace(plan, seed=plan.seed + self._seed).scaled(self._scale)
        return bind_plan(plan, self._implementation)

    @property
    def _scale(self) -> int:
        return self._ranks.scale if self._ranks else 1

    def _begin(self, plan: Plan) -> None:
        self.plan = plan
        self._about_to_run(plan)

    def _run(self, plan: Plan, standard_may_raise: bool, never_stopped: Plan | None) -> Finding:
        standard = self._standard_runs.here(plan, self._implementation, self._device)
        self._require_usable(plan, standard.raised, standard_may_raise)
        observed = train(plan, InBackward(self._implementation), self._device)
        rounding = self._implementation.declared.rounding.size
        finding = compare(standard, observed, self._requirement.may_refuse, rounding)
        if finding.outcome is Outcome.DIVERGES:
            self._require_repeatable(plan, standard)
        if never_stopped is None or observed.raised or standard.raised:
            return finding
        expected = self._standard_runs.here(never_stopped, self._implementation, self._device)
        # Gradients are not saved: a parameter that no optimizer holds keeps them only where nothing was stopped.
        at_the_end = replace(expected.snapshots[-1], grads={})
        return self._goes_on(finding, difference(at_the_end, observed.snapshots[-1], rounding))

    def _goes_on(self, resumed: Finding, lost: Finding | None) -> Finding:
        """Return the finding of a run that was saved and loaded.

        `resumed` compares it with the standard loop, saved and loaded as well, and `lost` with the one that was never
        stopped. They disagree where the optimizer class itself loses something.
        """
        own = self._implementation.declared.own_optimizers
        not_compared = lost if lost and lost.passed else None
        lost = None if not_compared else lost
        if resumed.passed and lost:
            what = f"its optimizer class does not go on as if never stopped, in the standard loop either: {lost.detail}"
            if not own:
                raise NotOffered(what)
            assert lost.difference
            where = replace(lost.difference, event=None, never_stopped=True)
            return replace(lost, detail=what, difference=where)
        if own and not resumed.passed and not lost:
            goes_on = "goes on as if never stopped, which its standard optimizer does not"
            return not_compared or Finding(Outcome.CONFORMS, goes_on)
        return resumed

    def _run_on_ranks(self, plan: Plan, standard_may_raise: bool) -> Finding:
        assert plan.ranks
        standard, observed = self._traces_on_ranks(plan, plan.ranks.world_size, standard_may_raise)
        tolerance = max(plan.tolerance, self._implementation.declared.rounding.size)
        finding = compare_ranks(standard, observed, self._requirement.may_refuse, tolerance)
        if finding.outcome is Outcome.DIVERGES:
            size = plan.ranks.world_size
            self._require_same_again(
                plan,
                lambda: compare_ranks(
                    standard, self._call_on_ranks(size, run_standard, plan), tolerance=plan.tolerance
                ),
            )
        return finding

    def _traces_on_ranks(
        self, plan: Plan, size: int, standard_may_raise: bool
    ) -> tuple[Sequence[Trace], Sequence[Trace]]:
        """Return the traces of the standard loop and of the implementation, one for each rank."""
        if accelerator.shares_devices(self._device, size) and plan.sends_activations:
            raise NotRun(SHARED_DEVICE)
        if remembered := self._standard_runs.remembered(plan, self._implementation):
            return remembered, self._call_on_ranks(size, run_observed, plan)
        try:
            traces: list[tuple[Trace, Trace]] = self._call_on_ranks(size, run_both, plan)
        except BrokenPromise:
            # The standard loop may be to blame instead, which cannot be checked if ranks cannot be replaced.
            with suppress(NotRun):
                self._run_standard_alone(plan)
            raise
        standard, observed = map(list, zip(*traces, strict=True))
        raised = next((trace.raised for trace in standard if trace.raised), None)
        self._require_usable(plan, raised, standard_may_raise)
        if raised:  # and nothing was run after it
            return standard, self._call_on_ranks(size, run_observed, plan)
        self._standard_runs.remember(plan, self._implementation, standard)
        return standard, observed

    def _require_usable(self, plan: Plan, raised: Raised | None, standard_may_raise: bool) -> None:
        if raised and (not standard_may_raise or raised.text.startswith(PLAN_ERRORS)):
            raise unusable_plan_error(self._implementation, plan, raised)

    def _require_repeatable(self, plan: Plan, standard: Trace) -> None:
        # Each run has a loop of its own: a loop keeps the optimizers of the model that it has trained.
        self._require_same_again(
            plan, lambda: compare(standard, train(plan, StandardLoop(self._implementation), self._device))
        )

    def _require_same_again(self, plan: Plan, run_again: Callable[[], Finding]) -> None:
        """Require that the standard loop gives the same again, where it may not.

        A model of another library may do what it likes, and some kernels of accelerators add in any order.

        Args:
            plan: what is run.
            run_again: runs it by the standard loop, and compares that with the first time.

        Raises:
            NotRun: it does not.
        """
        if is_of_a_library(plan) or accelerator.is_accelerator(self._device):
            for _ in range(TIMES_AGAIN):
                again = run_again()
                if not again.passed:
                    what = f"the standard loop itself trains {plan.model} otherwise each time: {again.detail}"
                    raise NotRun(what)

    def _run_standard_alone(self, plan: Plan) -> None:
        assert plan.ranks
        try:
            self._call_on_ranks(plan.ranks.world_size, run_standard, plan)
        except BrokenPromise as error:
            raise RuntimeError(f"the plan proves nothing, the standard loop itself: {error}") from error

    def _call_on_ranks(self, world_size: int, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        if self._ranks is None:
            raise NotRun(f"{world_size} ranks are needed, and this run has none")
        return self._ranks.call(world_size, call, *arguments)

    @contextmanager
    def rejected(self, model: nn.Module, what: str, as_in: Callable[[], object] | None = None) -> Iterator[None]:
        """Require that the body of the with statement raises a clear error, and does not change or attach to `model`.

        For bad input, which the standard loop rejects as well; `what` describes it. `as_in` passes the same input to
        torch; the same error as torch's passes, even if it is not clear.

        Raises:
            BrokenPromise: nothing was raised, the error was an accident, or something has changed.
            NotOffered: one of the implementation's own optimizer classes accepts it.
        """
        with rejection(self._implementation, model, what, as_in):
            yield
        self.findings.append(CONFORMS)
