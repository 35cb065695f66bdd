"""Pipeline parallelism by `torch.distributed.pipelining`: stages on several ranks, batches split into micro-batches.

A schedule runs backward for each micro-batch of each stage. After the last it divides the gradients by the number of
micro-batches, unless the loss is a sum. The standard loop is `schedule.step(…)`, `optimizer.step()`,
`optimizer.zero_grad()`. An implementation that accumulates has the schedule run meanwhile, and its optimizers are
stepped by hand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbackward_conformance.catalogue.parallel_layers import trained_in_stage
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AttachMore,
    CutIntoStages,
    Event,
    FullyShard,
    PerRank,
    RunPipeline,
    StepByHand,
)

MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
"""AdamW would take nearly the same step with gradients of another scale."""

TWO_STAGES = Ranks(2, pipeline=2, fixed=True)

GPIPE = CutIntoStages("ScheduleGPipe")
ONE_F_ONE_B = CutIntoStages("Schedule1F1B")
INTERLEAVED = CutIntoStages("ScheduleInterleaved1F1B", stages_per_rank=2)
SUM_OF_LOSSES = replace(INTERLEAVED, scale_grads=False)
ZERO_BUBBLE = CutIntoStages("ScheduleInterleavedZeroBubble", stages_per_rank=2)

STAGE_0, STAGE_1, STAGE_2, STAGE_3 = (
    AttachMore(replace(MOMENTUM, params=trained_in_stage(stage))) for stage in range(4)
)
"""Attachment to a stage, but for its last bias, which belongs to no optimizer."""

NOTHING = StepByHand()
"""For a rank that has nothing to step by hand."""

in_stages = pytest.mark.parametrize(
    ("cut", "attach"),
    [
        (ONE_F_ONE_B, (PerRank((STAGE_0, NOTHING)),)),
        (ONE_F_ONE_B, (PerRank((NOTHING, STAGE_1)),)),
        (INTERLEAVED, (PerRank((STAGE_0, STAGE_1)),)),
        (INTERLEAVED, (PerRank((STAGE_0, STAGE_1)), PerRank((STAGE_2, STAGE_3)))),
    ],
    ids=["first", "last", "one-of-two", "each"],
)
tied = pytest.mark.parametrize(
    ("cut", "group", "summed"),
    [
        (ONE_F_ONE_B, TWO_STAGES, ("stage0.0.weight", "stage1.2.weight")),
        # Before, Gloo could not send to the rank itself.
        pytest.param(SUM_OF_LOSSES, Ranks(1, pipeline=1), (), marks=pytest.mark.torch(">=2.12")),
    ],
    ids=["summed-by-hand", "on-one-rank"],
)
sharded = pytest.mark.parametrize("layers", [("",), ("0", "2", "")], ids=["whole", "by-layer"])


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    "cut", [GPIPE, ONE_F_ONE_B, INTERLEAVED, SUM_OF_LOSSES], ids=["GPipe", "1F1B", "interleaved", "sum-of-losses"]
)
def test_schedules(check: Check, cut: CutIntoStages) -> None:
    """A schedule is one step, after the last micro-batch, or is refused before any step."""
    check(_pipeline(cut, RunPipeline()))


@pytest.mark.must
@pytest.mark.may_refuse
def test_zero_bubble(check: Check) -> None:
    """A zero-bubble schedule, which sets most gradients of weights itself and calls no hook, is one step or refused."""
    check(_pipeline(ZERO_BUBBLE, RunPipeline()))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize(
    "cut", [GPIPE, ONE_F_ONE_B, INTERLEAVED, ZERO_BUBBLE], ids=["GPipe", "1F1B", "interleaved", "zero-bubble"]
)
def test_accumulated(check: Check, cut: CutIntoStages) -> None:
    """Gradients of a schedule that the implementation accumulates are stepped by hand, with the same result."""
    check(_pipeline(cut, RunPipeline(accumulated=True)))


@pytest.mark.must
@pytest.mark.may_refuse
@in_stages
def test_attached_to_stages(check: Check, cut: CutIntoStages, attach: tuple[Event, ...]) -> None:
    """An optimizer attached to one stage trains this stage, and each of several its own; other parameters stay."""
    check(_pipeline(cut, RunPipeline(), attach))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@in_stages
def test_accumulated_in_stages(check: Check, cut: CutIntoStages, attach: tuple[Event, ...]) -> None:
    """The same, with gradients that accumulate."""
    check(_pipeline(cut, RunPipeline(accumulated=True), attach))


@pytest.mark.must
@pytest.mark.may_refuse
@tied
def test_tied_stages(check: Check, cut: CutIntoStages, group: Ranks, summed: tuple[str, ...]) -> None:
    """A weight that the first and the last stage share is stepped with the gradient of both, or it is refused.

    On two ranks each has a copy, and the user sums their gradients between schedule and step.
    """
    check(_tied(cut, RunPipeline(summed=summed), group))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@tied
def test_tied_stages_accumulated(check: Check, cut: CutIntoStages, group: Ranks, summed: tuple[str, ...]) -> None:
    """The same, with gradients that accumulate."""
    check(_tied(cut, RunPipeline(accumulated=True, summed=summed), group))


@pytest.mark.must
@pytest.mark.may_refuse
@sharded
def test_fully_sharded_stages(check: Check, layers: tuple[str, ...]) -> None:
    """Stages that `fully_shard` shards over further ranks are stepped once a schedule, or it is refused.

    The schedule has the gradients reduced at its end, outside of backward, and then scales them.
    """
    check(_sharded(layers, RunPipeline()))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@sharded
def test_fully_sharded_stages_accumulated(check: Check, layers: tuple[str, ...]) -> None:
    """The same, with gradients that accumulate."""
    check(_sharded(layers, RunPipeline(accumulated=True)))


def _pipeline(cut: CutIntoStages, run: RunPipeline, attach: tuple[Event, ...] = ()) -> Plan:
    assignments = () if attach else (MOMENTUM,)
    return Plan(
        "Stages",
        assignments,
        (*attach, *(run,) * 3),
        before=(cut,),
        arguments=(2 * cut.stages_per_rank,),
        ranks=TWO_STAGES,
    )


def _tied(cut: CutIntoStages, run: RunPipeline, group: Ranks) -> Plan:
    shared = (("stage1.2.weight", "stage0.0.weight"),)
    return Plan("Stages", (MOMENTUM,), (run,) * 3, before=(cut,), shared=shared, ranks=group)


def _sharded(layers: tuple[str, ...], run: RunPipeline) -> Plan:
    stages = [
        FullyShard(layers=tuple(f"stage{stage}.{layer}".strip(".") for layer in layers)) for stage in (0, 0, 1, 1)
    ]
    before = (ONE_F_ONE_B, PerRank(tuple(stages)))
    return Plan("Stages", (MOMENTUM,), (run,) * 3, before=before, ranks=Ranks(4, pipeline=2, fixed=True))
