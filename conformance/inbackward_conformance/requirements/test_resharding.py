"""Checkpoints of `torch.distributed.checkpoint` that are saved on one device mesh and loaded on another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from inbackward_conformance.catalogue.parallel_layers import MLP_BY_LAYER, MLP_CHAINED, trained_in_stage
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import Outcome
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AttachMore,
    Backward,
    CutIntoStages,
    Event,
    LoadSharded,
    PerRank,
    RunPipeline,
)

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
THREE_STEPS = (Backward(),) * 3

Mesh = tuple[Ranks, tuple[Event, ...]]


DATA: Mesh = Ranks(2), (MLP_BY_LAYER,)
HYBRID: Mesh = Ranks(4, replicate=2), (MLP_BY_LAYER,)
TENSOR: Mesh = Ranks(2, tensor=2, fixed=True), (MLP_CHAINED,)
DATA_AND_TENSOR: Mesh = Ranks(4, tensor=2), (MLP_CHAINED, MLP_BY_LAYER)


STAGES = tuple(AttachMore(replace(MOMENTUM, params=trained_in_stage(stage))) for stage in range(4))
"""Attachment to each stage of a pipeline, but for its last bias."""
ONE_RANK = Ranks(1), (), STAGES, THREE_STEPS
PIPELINE = (
    Ranks(2, pipeline=2, fixed=True),
    (CutIntoStages("ScheduleInterleaved1F1B", stages_per_rank=2),),
    (PerRank(STAGES[:2]), PerRank(STAGES[2:])),
    (RunPipeline(accumulated=True),) * 3,
)


@pytest.mark.must
@pytest.mark.parametrize("assignment", [ADAMW, MOMENTUM], ids=["AdamW", "SGD"])
@pytest.mark.parametrize(
    ("saved", "loaded"),
    [(DATA, DATA_AND_TENSOR), (DATA_AND_TENSOR, DATA), (TENSOR, HYBRID), (HYBRID, TENSOR)],
    ids=["data-to-both", "both-to-data", "tensor-to-hybrid", "hybrid-to-tensor"],
)
def test_another_mesh(check: Check, tmp_path: Path, saved: Mesh, loaded: Mesh, assignment: Assignment) -> None:
    """Model and states that were saved on one mesh are loaded on another, and training goes on as if never stopped."""
    _save_and_load(check, tmp_path, (saved, loaded), assignment)


@pytest.mark.must
@pytest.mark.parametrize("saved_by", ["StandardLoop", "InBackward"], ids=["loads", "saves"])
@pytest.mark.parametrize(
    ("saved", "loaded"), [(DATA, DATA_AND_TENSOR), (TENSOR, HYBRID)], ids=["data-to-both", "tensor-to-hybrid"]
)
def test_single_optimizer(check: Check, tmp_path: Path, saved: Mesh, loaded: Mesh, saved_by: str) -> None:
    """What one ordinary optimizer has saved is loaded, and one ordinary optimizer loads what was saved."""
    _save_and_load(check, tmp_path, (saved, loaded), ADAMW, saved_by)


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize("to_stages", [False, True], ids=["from-stages", "to-stages"])
def test_stages(check: Check, tmp_path: Path, to_stages: bool) -> None:
    """Ranks with two stages of a pipeline each save all of their states, and one rank loads them; or the other way."""
    saved, loaded = (ONE_RANK, PIPELINE) if to_stages else (PIPELINE, ONE_RANK)
    saving_ranks, saving_before, attach, steps = saved
    load = LoadSharded(str(tmp_path), saving_ranks, saving_before, (*attach, *steps))
    ranks, before, attach, steps = loaded
    plan = Plan("Stages", (), (*attach, load, *steps), before=before, arguments=(4,), ranks=ranks)
    check(plan.saving(load))
    check(plan)


def _save_and_load(
    check: Check, folder: Path, meshes: tuple[Mesh, Mesh], assignment: Assignment, saved_by: str = ""
) -> None:
    (saving_ranks, saving_before), (ranks, before) = meshes
    load = LoadSharded(str(folder), saving_ranks, saving_before, THREE_STEPS, of=saved_by)
    plan = Plan("MLP", (assignment,), (load, *THREE_STEPS), before=before, ranks=ranks)
    check(plan.saving(load))
    if check.findings[-1].outcome is not Outcome.REFUSES:  # else there is nothing to load
        check(plan, standard_may_raise=saved_by == "InBackward")  # on a file that an ordinary optimizer cannot load
