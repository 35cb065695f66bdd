"""Plans that Hypothesis draws: what is drawn, and what a user sees of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import find, given, settings
from hypothesis.errors import NoSuchExample
from hypothesis.strategies import SearchStrategy  # noqa: TC002 (as in all tests)

from conftest import Suite
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind_plan
from inbackward_conformance.checking.drawn import Drawn
from inbackward_conformance.checking.profiles import QUICK, drawing
from inbackward_conformance.checking.strategies import plans
from inbackward_conformance.checking.strategies.graphs import Graph, dimensions_of
from inbackward_conformance.checking.strategies.situation import Situation
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, Outcome, OutOfTime
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Attach, Backward, Detach, Load, ReplaceByCopy, Save
from inbackward_conformance.ranks.time_limit import time_limit
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

FAMILIES = [
    plans.structures,
    plans.shared_storage,
    plans.grad_modes,
    plans.frozen_parameters,
    plans.histories,
    plans.checkpoints,
    plans.attachments,
    plans.steps_by_hand,
    plans.hooked_and_unhooked,
    plans.repeated_listings,
    plans.gradients_from_before,
]
"""All but new data and swapped tensors, some of which the standard loop cannot follow."""

SGD = "Assignment('SGD', options={'lr': 0.1})"
FEW = settings(drawing(QUICK), max_examples=25)


IN_HISTORIES: dict[str, Callable[[Plan], bool]] = {
    "three-optimizers": lambda plan: len(plan.assignments) == 3,
    "sharing": lambda plan: bool(plan.shared),
    "dtype": lambda plan: plan.dtype == "bfloat16",
    "skipped-branch": lambda plan: any(each.skip for each in backwards(plan)),
    "detached": lambda plan: any(isinstance(event, Detach) for event in plan.events),
    "resumed": lambda plan: any(isinstance(event, Save) for event in plan.events) and Load() in plan.events,
}


def backwards(plan: Plan) -> list[Backward]:
    return [event for event in plan.events if isinstance(event, Backward)]


def tied(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The parameters that share memory, in pairs."""
    pairs: tuple[tuple[str, str], ...] = plan.arguments[1] if plan.model == "TiedLayerGraph" else ()
    return pairs


def overlaps_partly(pair: tuple[str, str]) -> bool:
    name, source = pair
    return dimensions_of(name) < dimensions_of(source)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_standard_loop_can_follow_what_is_drawn(family: Callable[[], SearchStrategy[Plan]]) -> None:
    """A plan that it cannot follow proves nothing."""

    @FEW
    @given(family())
    def follows(plan: Plan) -> None:
        trace = train(plan, StandardLoop(Implementation(object())))
        assert trace.raised is None, trace.raised

    follows()


@pytest.mark.parametrize(
    ("family", "has"),
    [
        *((plans.histories, has) for has in IN_HISTORIES.values()),
        (plans.shared_storage, lambda plan: any(map(overlaps_partly, tied(plan)))),
        (plans.shared_storage, lambda plan: not all(map(overlaps_partly, tied(plan)))),
        (plans.grad_modes, lambda plan: {"no_grad", "inference_mode"} <= {each.inside for each in backwards(plan)}),
    ],
    ids=[*IN_HISTORIES, "partly-overlapping", "same-memory", "grad-modes"],
)
def test_families_have_what_they_should(family: Callable[[], SearchStrategy[Plan]], has: object) -> None:
    try:
        find(family(), has, settings=settings(FEW, max_examples=2000))  # type: ignore[arg-type]
    except NoSuchExample:
        pytest.fail("none of 2000")


def broken(plan: Plan, outcome: Outcome, detail: str = "so it is") -> BrokenPromise:
    return BrokenPromise(Finding(outcome, detail, passed=False), plan)


def draw(answer: Callable[[Plan], None], checked: list[Plan] | None = None) -> None:
    """Draw plans for `answer`, in the place of `Check`; list those that it got."""

    class Answering:
        plan: Plan | None = None

        def __call__(self, plan: Plan, **_: object) -> None:
            self.plan = bind_plan(plan, Implementation(object()))
            if checked is not None:
                checked.append(self.plan)
            answer(self.plan)

    Drawn(Answering(), FEW, 0, lambda: time_limit(0.2))(plans.histories())  # type: ignore[arg-type]


def test_one_finding_with_the_smallest_plan() -> None:
    """Though plans fail in two ways."""

    def answer(plan: Plan) -> None:
        if len(plan.events) > 1:
            raise broken(plan, Outcome.DIVERGES, "two events")
        if len(plan.assignments) > 1:
            raise broken(plan, Outcome.FAILS, "two optimizers")

    with pytest.raises(BrokenPromise) as caught:
        draw(answer)
    assert caught.value.finding.detail in {
        f"two events; drawn: Plan('LayerGraph', ({SGD},), (Backward(), Backward()))",
        f"two optimizers; drawn: Plan('LayerGraph', ({SGD}, {SGD}), (Backward(),))",
    }
    assert repr(caught.value.plan) in caught.value.finding.detail


def test_what_hangs_is_not_shrunk() -> None:
    def answer(plan: Plan) -> None:
        while len(plan.events) > 1:
            pass

    checked: list[Plan] = []
    with pytest.raises(OutOfTime, match=r"still running after 0.2 s.*; drawn: Plan\('LayerGraph'"):
        draw(answer, checked)
    assert len(checked) < FEW.max_examples


def test_what_crashes_ranks_is_not_shrunk() -> None:
    def answer(plan: Plan) -> None:
        raise broken(plan, Outcome.CRASHES)

    checked: list[Plan] = []
    with pytest.raises(BrokenPromise, match="so it is; drawn: Plan"):
        draw(answer, checked)
    assert len(checked) == 1


def test_what_is_not_offered_is_passed_over() -> None:
    def answer(plan: Plan) -> None:
        if len(plan.events) > 1:
            raise NotOffered("two events")

    checked: list[Plan] = []
    draw(answer, checked)
    assert len(checked) == FEW.max_examples


def test_nothing_offered() -> None:
    def answer(_: Plan) -> None:
        raise NotOffered("anything")

    with pytest.raises(NotOffered, match="anything"):
        draw(answer)


def test_what_fails_at_times_is_a_failure() -> None:
    """Of the implementation, not of the suite."""
    checked: list[Plan] = []

    def answer(plan: Plan) -> None:
        if len(checked) == 7:
            raise broken(plan, Outcome.DIVERGES)

    with pytest.raises(BrokenPromise, match="diverges: not every time: so it is; drawn: Plan"):
        draw(answer, checked)


def test_a_time_limit_is_for_one_plan() -> None:
    """Many plans take longer than one may."""

    checked: list[Plan] = []
    draw(lambda _: time.sleep(0.02), checked)
    assert len(checked) == FEW.max_examples


def drawings(suite: Suite, *options: str) -> list[dict[str, object]]:
    name = "mutants.of_structure:OneOptimizerAMention"
    suite.run("--implementation", name, "-k", "repeated", *options, chapter="properties")
    return [{key: value for key, value in case.items() if key != "seconds"} for case in suite.cases()]


def test_a_run_is_repeatable_and_leaves_no_files(suite: Suite, pytester: pytest.Pytester) -> None:
    """The record is the same, times aside, with the plan in it; a seed draws others, and a profile more."""
    first = drawings(suite, "-p", "no:cacheprovider")
    assert first == drawings(suite, "-p", "no:cacheprovider", "-n", "1")
    assert "; drawn: Plan('LayerGraph', " in str(first[0]["detail"])
    assert not (pytester.path / ".hypothesis").exists()
    assert drawings(suite, "--conformance-seed=1")[0]["drawn"] != first[0]["drawn"]


def test_profiles(suite: Suite) -> None:
    """Hypothesis's own option chooses; the record says what, and how many plans there were."""
    sound = ("--implementation=mutants.naive:Naive", "-k", "structures")
    result = suite.run(*sound, chapter="properties")
    result.stdout.fnmatch_lines(["  30 plans drawn, * a second"])
    assert (suite.record()[0]["profile"], suite.cases()[0]["drawn"]) == ("quick", 30)
    suite.run(*sound, "--hypothesis-profile=ci", chapter="properties")
    assert (suite.record()[0]["profile"], suite.cases()[0]["drawn"]) == ("ci", 150)


def test_a_checkpoint_is_loaded_only_where_as_many_parameters_are() -> None:
    """A copy of one layer unties what it shared with another, and an optimizer attached then has one more parameter."""
    graph = Graph((("linear0", (0,)), ("linear1", (1,))), (("linear1.bias", "linear0.bias"),))
    at_start = Situation(graph, (Assignment("SGD"),))
    untied = (ReplaceByCopy("linear0"), Detach(), Attach())
    in_place = Load(rebuild=False)
    assert at_start.after([Save()]).checkpoints() == [Save(), in_place, Load()]
    assert at_start.after([Save(), *untied]).checkpoints() == [Save(), Load()]
    assert at_start.after([*untied, Save()]).checkpoints() == [Save(), in_place]
    assert at_start.after([*untied, Save(), *untied]).checkpoints() == [Save()]
    assert at_start.after([Save(), *untied, Load()]).checkpoints() == [Save(), in_place, Load()]
