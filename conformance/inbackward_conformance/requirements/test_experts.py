"""Mixtures of experts: parameters that only the tokens of some ranks reach, under DDP and FSDP2.

Weight decay and momentum move a parameter whose gradient is zero, and leave alone one that has none.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, Event, FullyShard, MicroBatch, WrapDDP
from inbackward_conformance.plugin.optimizer_cases import optimizers

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
FIVE_STEPS = (Backward(),) * 5

FIND_UNUSED = WrapDDP({"find_unused_parameters": True})
BY_EXPERT = FullyShard(layers=tuple(f"experts.{number}" for number in range(4)))

both = optimizers("assignment", [ADAMW, MOMENTUM])


@pytest.mark.must
@both
@pytest.mark.parametrize("wrap", [WrapDDP(), BY_EXPERT, FullyShard()], ids=["DDP", "by-expert", "whole"])
def test_without_tokens(check: Check, wrap: Event, assignment: Assignment) -> None:
    """An expert that is called without a token has a gradient of zeros; it is averaged and stepped like any other.

    No rank may have a token for it. Weight decay and momentum move it.
    """
    check(Plan("Experts", (assignment,), FIVE_STEPS, before=(wrap,), ranks=Ranks(2)))


@pytest.mark.must
@both
def test_not_called(check: Check, assignment: Assignment) -> None:
    """Under DDP, an expert that only some ranks call is averaged over all, and stepped on all.

    One that no rank calls stays put.
    """
    check(Plan("SkippedExperts", (assignment,), FIVE_STEPS, before=(FIND_UNUSED,), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize(
    ("model", "wrap"), [("SkippedExperts", FIND_UNUSED), ("Experts", BY_EXPERT)], ids=["DDP", "FSDP2"]
)
def test_micro_batches(check: Check, model: str, wrap: Event) -> None:
    """Accumulated micro-batches are one step, also of an expert that one of them alone has reached."""
    events = (MicroBatch(), MicroBatch(), Backward()) * 2
    check(Plan(model, (ADAMW,), events, before=(wrap,), ranks=Ranks(2)))
