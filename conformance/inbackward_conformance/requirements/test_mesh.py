"""Device meshes of two dimensions: FSDP2 over tensor parallelism, and hybrid sharding, which replicates shards.

Batches differ where ranks differ in a dimension of data parallelism. Equal means to the bit, as in the chapter fsdp.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.catalogue.parallel_layers import (
    FEED_FORWARD,
    FEED_FORWARD_IN_SEQUENCE,
    MLP_BY_LAYER,
    MLP_CHAINED,
    MLP_KEPT_FOR_BACKWARD,
)
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AccumulateUnsynchronised,
    Backward,
    DeclareLocal,
    Event,
    FullyShard,
    MicroBatch,
)

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3
ACCUMULATING = (Backward(), *(AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward()) * 2)

WHOLE = FullyShard()

OVER_TENSORS = Ranks(4, tensor=2)
HYBRID = Ranks(4, replicate=2)

meshes = pytest.mark.parametrize(
    ("parallel", "group"), [((MLP_CHAINED,), OVER_TENSORS), ((), HYBRID)], ids=["over-tensor-parallelism", "hybrid"]
)


@pytest.mark.must
@pytest.mark.parametrize(
    "shard", [WHOLE, MLP_BY_LAYER, MLP_KEPT_FOR_BACKWARD], ids=["whole", "by-layer", "kept-for-backward"]
)
@meshes
def test_fully_shard(check: Check, parallel: tuple[Event, ...], group: Ranks, shard: FullyShard) -> None:
    """Attached after `fully_shard` over one dimension of the mesh, parameters train, resharded after forward or not.

    The other dimension has the parts of each tensor, or replicas whose gradients are averaged.
    """
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(*parallel, shard), ranks=group))


@pytest.mark.must
@pytest.mark.may_refuse
@meshes
def test_attached_before(check: Check, parallel: tuple[Event, ...], group: Ranks) -> None:
    """Attached before `fully_shard`, through the implementation's own call: as an optimizer built afterwards."""
    check(Plan("MLP", (ADAMW,), (MLP_BY_LAYER, *THREE_STEPS), before=parallel, ranks=group))


@pytest.mark.must
@meshes
def test_gradient_sync(check: Check, parallel: tuple[Event, ...], group: Ranks) -> None:
    """What has accumulated under `set_requires_gradient_sync(False)` is stepped with the next synchronised backward."""
    check(Plan("MLP", (ADAMW,), ACCUMULATING, before=(*parallel, MLP_BY_LAYER), ranks=group))


@pytest.mark.must
def test_all_reduce_left_out(check: Check) -> None:
    """Under hybrid sharding, `set_requires_all_reduce(False)` leaves out the average over the replicas alone.

    What has accumulated without it is stepped with the next backward that averages.
    """
    within = AccumulateUnsynchronised(switch="set_requires_all_reduce")
    events = (Backward(), *(within, within, Backward()) * 2)
    check(Plan("MLP", (ADAMW,), events, before=(MLP_BY_LAYER,), ranks=HYBRID))


@pytest.mark.must
def test_sequence_parallel(check: Check) -> None:
    """Under both, the gradient of a norm is added up over one dimension, and averaged over the other.

    The norm is applied to a part of the sequence on each rank that shares its tensors.
    """
    shard = FullyShard(layers=("norm", "up", "down"))
    check(Plan("FeedForward", (ADAMW,), THREE_STEPS, before=(FEED_FORWARD_IN_SEQUENCE, shard), ranks=OVER_TENSORS))


@pytest.mark.must
def test_beside_one_dimension(check: Check) -> None:
    """One optimizer trains parameters over both dimensions, and a norm that is sharded over one, the same in the other.

    Nothing averages its gradient over the other. The implementation is told so by `declare_local`, if it has this call.
    """
    events = (DeclareLocal(("norm.weight", "norm.bias")), *THREE_STEPS)
    check(Plan("FeedForward", (ADAMW,), events, before=(FEED_FORWARD, FullyShard()), ranks=OVER_TENSORS))


@pytest.mark.must
@pytest.mark.parametrize("assignment", [ADAMW, MOMENTUM], ids=["AdamW", "SGD"])
def test_unused_parameters(check: Check, assignment: Assignment) -> None:
    """A parameter that no rank has used stays put."""
    events = (Backward(), Backward(skip=("left",)), Backward())
    check(Plan("Branches", (assignment,), events, before=(FullyShard(),), ranks=HYBRID))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@meshes
def test_micro_batches(check: Check, parallel: tuple[Event, ...], group: Ranks) -> None:
    """Micro-batches that the implementation accumulates are one step, each of them reduced."""
    events = (MicroBatch(), MicroBatch(), Backward()) * 2
    check(Plan("MLP", (ADAMW,), events, before=(*parallel, MLP_BY_LAYER), ranks=group))
