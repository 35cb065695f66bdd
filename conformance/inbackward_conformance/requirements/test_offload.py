"""What saves memory beside the technique, under FSDP2 and DDP: offloading, and checkpointed activations."""

from __future__ import annotations

import pytest

from inbackward_conformance.catalogue.parallel_layers import MLP_BY_LAYER, MLP_LAYERS
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import Backward, ClippedBackward, Event, FullyShard, MicroBatch, WrapDDP
from inbackward_conformance.plugin.optimizer_cases import optimizers

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3

OFFLOADED = FullyShard(layers=MLP_LAYERS, offload=True)


@pytest.mark.must
@pytest.mark.parametrize("wrap", [MLP_BY_LAYER, WrapDDP()], ids=["FSDP2", "DDP"])
def test_saved_on_cpu(check: Check, wrap: Event) -> None:
    """What forward saves for backward within `save_on_cpu()` is what backward finds, whatever has stepped meanwhile."""
    check(Plan("SavedOnCPU", (ADAMW,), THREE_STEPS, before=(wrap,), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@optimizers("assignment", [ADAMW, MOMENTUM])
def test_states_on_the_cpu(check: Check, assignment: Assignment) -> None:
    """Under a `CPUOffloadPolicy` optimizer states are made where the shards are, in the memory of the CPU."""
    check(Plan("MLP", (assignment,), THREE_STEPS, before=(OFFLOADED,), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.needs("accumulate")
def test_micro_batches(check: Check) -> None:
    """Micro-batches that the implementation accumulates add up in the memory of the CPU, and are one step."""
    events = (MicroBatch(), MicroBatch(), Backward()) * 2
    check(Plan("MLP", (ADAMW,), events, before=(OFFLOADED,), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.needs("backward_clipped")
def test_clipping(check: Check) -> None:
    """Offloaded gradients are clipped by their total norm over all ranks."""
    check(Plan("MLP", (ADAMW,), (ClippedBackward(0.1),) * 3, before=(OFFLOADED,), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.parametrize("model", ["Checkpointed", "ReentrantCheckpointed", "CheckpointedTwice"])
@pytest.mark.parametrize("offload", [False, True], ids=["sharded", "offloaded"])
def test_checkpointed_layers(check: Check, model: str, offload: bool) -> None:
    """Activation checkpointing around sharded layers: backward gathers them again, and reduces each gradient once."""
    shard = FullyShard(layers=("first", "block", "head"), offload=offload)
    check(Plan(model, (ADAMW,), THREE_STEPS, before=(shard,), ranks=Ranks(2)))
