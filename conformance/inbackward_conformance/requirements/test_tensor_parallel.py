"""Tensor parallelism by `parallelize_module`: layers whose parameters are DTensors over a part of the ranks."""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    COLUMN,
    COLUMN_ALONE,
    ROW,
    ROW_ALONE,
    AverageByHand,
    Backward,
    Event,
    Parallelize,
)

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3


TWO_LAYERS = Parallelize({"0": COLUMN, "2": ROW})
EVERY_LAYER = Parallelize({"0": COLUMN_ALONE, "2": ROW_ALONE, "4": ROW_ALONE})


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    ("before", "group"),
    [((EVERY_LAYER,), Ranks(2, tensor=1)), ((TWO_LAYERS,), Ranks(4, tensor=2)), ((), Ranks(2))],
    ids=["alone", "two-of-four", "not-parallel"],
)
def test_averaged_by_hand(check: Check, before: tuple[Event, ...], group: Ranks) -> None:
    """Gradients that the user averages between backward and step are averaged when they are stepped, or it is refused.

    Inside backward, a step comes before that, and the ranks would drift apart. So it is with ordinary parameters, and
    with DTensors over some of the ranks, where the others have other batches.
    """
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(*before, AverageByHand()), ranks=group))
