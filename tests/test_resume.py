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


def _end(model: str, assignment: Assignment, *between: Save | Load) -> dict[str, torch.Tensor]:
    three = (Backward(),) * 3
    trace = train(Plan(model, (assignment,), (*three, *between, *three)), _standard_loop())
    assert trace.raised is None
    return trace.snapshots[-1].params


def _standard_loop() -> StandardLoop:
    return StandardLoop(Implementation(object()))


OWN: list[tuple[str, str, str | tuple[str, ...]]] = [
    (name, *MODEL_FOR.get(name, ("MLP", ALL))) for name in closure_free_optimizer_names()
]
WITH_DROPOUT: list[tuple[str, str, str | tuple[str, ...]]] = [
    (name, "TiedTransformer", ALL) for name, _, _ in OWN if name not in MODEL_FOR
]


@pytest.mark.parametrize(("name", "model", "params"), OWN + WITH_DROPOUT)
def test_standard_loop_goes_on_as_if_never_stopped(name: str, model: str, params: str | tuple[str, ...]) -> None:
    """The random numbers of dropout included."""
    assignment = Assignment(name, {"lr": 0.01}, params)
    stopped, never = _end(model, assignment, Save(), Load()), _end(model, assignment)
    assert [name for name, value in never.items() if not same_bits(value, stopped[name])] == []


def test_rebuilt_model_has_other_values() -> None:
    """Else a checkpoint that is not loaded would go unnoticed."""
    torch.manual_seed(0)
    live = TrainingRun(Plan("MLP", (Assignment("SGD", {"lr": 0.0}),), ()), _standard_loop(), "cpu")
    before = live.model.get_parameter("0.weight").detach().clone()
    live.rebuild()
    assert not torch.equal(before, live.model.get_parameter("0.weight"))
