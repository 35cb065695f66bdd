"""Tensor parallelism by `parallelize_module`: layers whose parameters are DTensors over a part of the ranks."""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import AverageByHand, Backward, ParallelizeLayers

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3


TWO_LAYERS = ParallelizeLayers(2, columns=("0",), rows=("2",))
EVERY_LAYER_ALONE = ParallelizeLayers(1, columns=("0",), rows=("2", "4"))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    ("parallelized", "size", "world_size"),
    [((EVERY_LAYER_ALONE,), 1, 2), ((TWO_LAYERS,), 2, 4), ((), 1, 2)],
    ids=["alone", "two-of-four", "not-parallel"],
)
def test_averaged_by_hand(
    check: Check, parallelized: tuple[ParallelizeLayers, ...], size: int, world_size: int
) -> None:
    """Gradients that the user averages between backward and step are averaged when they are stepped, or it is refused.

    Inside backward, a step comes before that, and the ranks would drift apart. So it is with ordinary parameters, and
    with DTensors over some of the ranks, where the others have other batches.
    """
    before = (*parallelized, AverageByHand(size))
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=before, ranks=Ranks(world_size)))
