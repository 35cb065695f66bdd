"""The models of the chapter `architectures`: `nox -s architectures` runs these, where their libraries are installed."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.catalogue import language_architectures, media_architectures
from inbackward_conformance.catalogue.architecture import Architecture
from inbackward_conformance.extras import missing, why_not_run
from inbackward_conformance.plan import MATRICES, OTHERS, TRAINED, Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.tensors import same_bits
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train
from test_two_readers import Both, source_of

pytestmark = pytest.mark.skipif(bool(missing("architectures")), reason=why_not_run("architectures"))

ARCHITECTURES = sorted(
    name
    for module in (language_architectures, media_architectures)
    for name, member in vars(module).items()
    if isinstance(member, type) and issubclass(member, Architecture) and not member.__subclasses__()
)

each = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """The order of arithmetic is the same then."""
    torch.set_num_threads(1)


def plan_of(name: str) -> Plan:
    return Plan(name, (Assignment("AdamW", {"lr": 0.01}, TRAINED),), (Backward(),) * 3)


@each
def test_the_standard_loop_trains_it_the_same_each_time(name: str) -> None:
    """Else a difference from it would tell nothing."""
    first, second = (train(plan_of(name), StandardLoop(Implementation(object()))) for _ in range(2))
    assert first.raised is None
    before, after = first.start.params, first.snapshots[-1].params
    assert all(same_bits(value, second.snapshots[-1].params[param]) for param, value in after.items())
    assert any(not same_bits(value, before[param]) for param, value in after.items())


@each
def test_a_script_leaves_what_a_run_leaves(name: str) -> None:
    assert Both(plan_of(name), source_of("architectures/gpt2", plan_of(name))).differences == []


@pytest.mark.parametrize("name", ["GPT2", "Whisper"])
def test_a_script_leaves_what_a_run_with_two_optimizers_leaves(name: str) -> None:
    matrices, others = Assignment("Muon", {"lr": 0.01}, MATRICES), Assignment("SGD", {"lr": 0.1}, OTHERS)
    plan = Plan(name, (matrices, others), (Backward(),) * 3)
    assert Both(plan, source_of("architectures/gpt2", plan)).differences == []
