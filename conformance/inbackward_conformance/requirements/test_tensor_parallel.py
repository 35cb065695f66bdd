"""Tensor parallelism by `parallelize_module`: layers whose parameters are DTensors over a part of the ranks.

Ranks that share a tensor train on the same batches. Each rank's shards, of parameters, gradients and states, are
compared with the same rank's in the standard loop, to the bit.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.catalogue.parallel_layers import (
    FEED_FORWARD,
    FEED_FORWARD_IN_SEQUENCE,
    MLP_ALONE,
    MLP_CHAINED,
    MLP_IN_PART,
)
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AverageByHand,
    Backward,
    ClippedBackward,
    DeclareLocal,
    Event,
    MicroBatch,
    Parallelize,
)
from inbackward_conformance.plugin.optimizer_cases import optimizers

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3

NORM = ("norm.weight", "norm.bias")


@pytest.mark.must
@optimizers("assignment", [ADAMW, MOMENTUM])
@pytest.mark.parametrize(
    ("layers", "size"),
    [(MLP_CHAINED, 2), (MLP_ALONE, 2), (MLP_ALONE, 4)],  # torch itself chains no shards of different sizes
    ids=["chained-2", "alone-2", "alone-4"],
)
def test_linear_layers(check: Check, layers: Parallelize, size: int, assignment: Assignment) -> None:
    """Linear layers that are sharded by columns and by rows train, on two ranks and on four.

    Some ranks hold a smaller part of a parameter, or none.
    """
    check(Plan("MLP", (assignment,), THREE_STEPS, before=(layers,), ranks=_over_tensors(size)))


@pytest.mark.must
@pytest.mark.parametrize("size", [2, 4])
def test_embedding(check: Check, size: int) -> None:
    """An embedding that is sharded by vocabulary trains, beside sharded layers and a frozen norm that is not."""
    check(_feed_forward(FEED_FORWARD, size=size, frozen=NORM))


@pytest.mark.must
@pytest.mark.parametrize("size", [2, 4])
def test_sequence_parallel(check: Check, size: int) -> None:
    """A norm that each rank applies to its part of a sequence is replicated, and its gradient is partial.

    Torch adds up the gradients of the ranks when the optimizer steps. A step with this rank's part is another step.
    """
    check(_feed_forward(FEED_FORWARD_IN_SEQUENCE, size=size))


@pytest.mark.must
def test_beside_plain_parameters(check: Check) -> None:
    """One optimizer trains DTensors, and an ordinary norm whose gradient every rank has.

    Nothing averages that gradient. The implementation is told so by `declare_local`, if it has this call.
    """
    check(_feed_forward(FEED_FORWARD, events=(DeclareLocal(NORM), *THREE_STEPS)))


@pytest.mark.must
@pytest.mark.may_refuse
def test_attached_before(check: Check) -> None:
    """Attached before `parallelize_module`, parameters that it replaces do not train, as with an ordinary optimizer.

    It makes new Parameter objects, which keep their gradients. The layer that stays as it is trains.
    """
    events = (MLP_IN_PART, DeclareLocal(("4.weight", "4.bias")), *THREE_STEPS)
    check(Plan("MLP", (ADAMW,), events, ranks=_over_tensors(2)))


@pytest.mark.must
@pytest.mark.parametrize("together", ["foreach", "fused"])
def test_stepped_together(check: Check, together: str) -> None:
    """An optimizer that steps DTensors together by `foreach` or `fused` trains them as it does one by one.

    Torch itself takes no ordinary tensors beside them then.
    """
    assignment = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1, together: True})
    check(Plan("MLP", (assignment,), THREE_STEPS, before=(MLP_CHAINED,), ranks=_over_tensors(2)))


@pytest.mark.must
def test_two_optimizers(check: Check) -> None:
    """Two optimizers on each DTensor step in the order of attachment."""
    check(Plan("MLP", (MOMENTUM, ADAMW), THREE_STEPS, before=(MLP_CHAINED,), ranks=_over_tensors(2)))


@pytest.mark.must
@pytest.mark.needs("accumulate")
def test_micro_batches(check: Check) -> None:
    """Micro-batches that the implementation accumulates are one step; partial gradients add up."""
    check(_feed_forward(FEED_FORWARD_IN_SEQUENCE, events=(MicroBatch(), MicroBatch(), Backward()) * 2))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.needs("backward_clipped")
@pytest.mark.parametrize("max_norm", [0.1, 1e6], ids=["clipped", "below"])
def test_clipping(check: Check, max_norm: float) -> None:
    """Gradients of DTensors are clipped by their total norm over all ranks, as by `clip_grad_norm_`."""
    check(_feed_forward(FEED_FORWARD_IN_SEQUENCE, events=(ClippedBackward(max_norm),) * 3))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    ("before", "group"),
    [((MLP_ALONE,), Ranks(2, tensor=1)), ((MLP_IN_PART,), Ranks(4, tensor=2)), ((), Ranks(2))],
    ids=["alone", "two-of-four", "not-parallel"],
)
def test_averaged_by_hand(check: Check, before: tuple[Event, ...], group: Ranks) -> None:
    """Gradients that the user averages between backward and step are averaged when they are stepped, or it is refused.

    Inside backward, a step comes before that, and the ranks would drift apart. So it is with ordinary parameters, and
    with DTensors over some of the ranks, where the others have other batches.
    """
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(*before, AverageByHand()), ranks=group))


def _over_tensors(size: int) -> Ranks:
    """Return the ranks of a mesh without data parallelism, also on a larger cluster."""
    return Ranks(size, tensor=size, fixed=True)


def _feed_forward(
    layers: Parallelize,
    *,
    size: int = 2,
    events: tuple[Event, ...] = THREE_STEPS,
    frozen: tuple[str, ...] = (),
) -> Plan:
    """Return a plan of attachment after the layers are made parallel."""
    return Plan("FeedForward", (ADAMW,), events, before=(layers,), frozen=frozen, ranks=_over_tensors(size))
