"""The composable `replicate`, which makes a module data parallel in place: by DDP, or as FSDP2 does without sharding.

It wraps nothing: the module stays the module, and its hooks do what a wrapper would.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import AccumulateUnsynchronised, Backward, Replicate

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3
ACCUMULATING = (Backward(), *(AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward()) * 2)

both = pytest.mark.parametrize("replicate", [Replicate(), Replicate(by_fsdp=True)], ids=["DDP", "FSDP2"])


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("world_size", [1, 2, 3])
@both
def test_replicated(check: Check, replicate: Replicate, world_size: int) -> None:
    """Attached after `replicate`, parameters step with averaged gradients, or it is refused."""
    tolerance = 0.0 if replicate.by_fsdp else 1e-6  # that of three ranks which the chapter ddp states
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(replicate,), ranks=Ranks(world_size, tolerance)))


@pytest.mark.must
@pytest.mark.may_refuse
@both
def test_attached_before(check: Check, replicate: Replicate) -> None:
    """Attached before `replicate`: as with an ordinary optimizer that was made before, or it is refused.

    The parameters stay the same objects, or are replaced by new ones that do not train.
    """
    check(Plan("MLP", (ADAMW,), (replicate, *THREE_STEPS), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@both
def test_gradient_sync(check: Check, replicate: Replicate) -> None:
    """What has accumulated under `set_requires_gradient_sync(False)` is stepped with the next synchronised backward."""
    check(Plan("MLP", (ADAMW,), ACCUMULATING, before=(replicate,), ranks=Ranks(2)))
