"""A late refusal passes where it owns up to the steps that were made."""

from __future__ import annotations

import pytest
import torch

from inbackward_conformance.outcome import Finding, Outcome, Refusal
from inbackward_conformance.training.compare import compare
from inbackward_conformance.training.trace import Raised, Snapshot, Trace

STEPPED = "The gradient came twice, and the parameter was already stepped. Pass use_reentrant=False."
SILENT = "one of the variables needed for gradient computation has been modified by an inplace operation"


def judge(message: str, *, changed: bool, may_refuse: Refusal | None) -> Finding:
    def snapshot(value: float) -> Snapshot:
        return Snapshot("event 1", {"weight": torch.tensor(value)}, {}, {"weight": None}, {"weight": []})

    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(message)
    raised = Raised.observe(caught.value, "event 1", attaching=0)
    standard = Trace(snapshot(0.0), [snapshot(1.0)])
    return compare(standard, Trace(snapshot(0.0), [snapshot(float(changed))], raised), may_refuse)


def test_says_that_parameters_were_stepped() -> None:
    found = judge(STEPPED, changed=True, may_refuse=Refusal.LATE)
    assert (found.outcome, found.passed) == (Outcome.REFUSES, True)


def test_says_nothing_of_the_steps() -> None:
    found = judge(SILENT, changed=True, may_refuse=Refusal.LATE)
    assert (found.outcome, found.passed) == (Outcome.FAILS, False)
    assert found.detail.endswith("without a word of the parameters already stepped: weight")


def test_nothing_was_stepped() -> None:
    found = judge(SILENT, changed=False, may_refuse=Refusal.LATE)
    assert (found.outcome, found.passed) == (Outcome.REFUSES, True)


@pytest.mark.parametrize("may_refuse", [None, Refusal.AT_ATTACHMENT, Refusal.BEFORE_ANY_CHANGE])
def test_late_is_too_late_elsewhere(may_refuse: Refusal | None) -> None:
    found = judge(STEPPED, changed=True, may_refuse=may_refuse)
    assert (found.outcome, found.passed) == (Outcome.FAILS, False)
    assert "torn update" in found.detail
