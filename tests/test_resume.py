"""The oracle's own checkpoint is exact: a standard loop that stops and goes on is one that never stopped."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue.optimizer_configurations import MODEL_FOR, closure_free_optimizer_names
from inbackward_conformance.plan import ALL, Assignment, Plan
from inbackward_conformance.plan.events import Backward, Load, Save
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.run import TrainingRun
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train

THREE = (Backward(),) * 3
NAMES = closure_free_optimizer_names()
WITH_DROPOUT = [(name, "TiedTransformer", ALL) for name in NAMES if name not in MODEL_FOR]


def standard_loop() -> StandardLoop:
    return StandardLoop(Implementation(object()))


@pytest.mark.parametrize(
    ("name", "model", "params"), [*((name, *MODEL_FOR.get(name, ("MLP", ALL))) for name in NAMES), *WITH_DROPOUT]
)
def test_standard_loop_goes_on_as_if_never_stopped(name: str, model: str, params: str | tuple[str, ...]) -> None:
    """The random numbers of dropout included."""
    assignments = (Assignment(name, {"lr": 0.01}, params),)
    stopped = train(Plan(model, assignments, (*THREE, Save(), Load(), *THREE)), standard_loop())
    never = train(Plan(model, assignments, (*THREE, *THREE)), standard_loop())
    assert stopped.raised is never.raised is None
    after = stopped.snapshots[-1].params
    assert [name for name, value in never.snapshots[-1].params.items() if not same_bits(value, after[name])] == []


def test_rebuilt_model_has_other_values() -> None:
    """Else a checkpoint that is not loaded would go unnoticed."""
    torch.manual_seed(0)
    live = TrainingRun(Plan("MLP", (Assignment("SGD", {"lr": 0.0}),), ()), standard_loop(), "cpu")
    before = live.model.get_parameter("0.weight").detach().clone()
    live.rebuild()
    assert not torch.equal(before, live.model.get_parameter("0.weight"))
