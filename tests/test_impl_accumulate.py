"""`Handle.accumulate`: gradients add up and nothing steps."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD, Adam

import inbackward
from impl_support import assert_untouched, batch, make, plain

BUCKETS = pytest.mark.parametrize("bucket_bytes", [0, 64, 4 << 20])


@BUCKETS
@pytest.mark.parametrize("micro_batches", [2, 3])
def test_the_last_micro_batch_steps_what_any_has_reached(bucket_bytes: int, micro_batches: int) -> None:
    """The first one alone reaches the layer `spare`."""
    standard, ours = make(), make()
    expected, handed = Adam(standard.parameters()), Adam(ours.parameters())
    handle = inbackward.step_in_backward(handed, bucket_bytes)
    for step in range(3):
        for number in range(micro_batches):
            standard(batch(step, number), spare=number == 0).pow(2).sum().backward()
        expected.step()
        expected.zero_grad()
        with handle.accumulate():
            for number in range(micro_batches - 1):
                ours(batch(step, number), spare=number == 0).pow(2).sum().backward()
        ours(batch(step, micro_batches - 1), spare=False).pow(2).sum().backward()
        assert all(param.grad is None for param in ours.parameters())
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@BUCKETS
def test_an_error_inside_leaves_gradients_as_without_an_optimizer(bucket_bytes: int) -> None:
    ordinary, ours = make(), make()
    handle = inbackward.step_in_backward(SGD(ours.parameters(), lr=0.1), bucket_bytes)
    with pytest.raises(ZeroDivisionError), handle.accumulate():  # noqa: PT012
        plain(ours)
        raise ZeroDivisionError
    plain(ordinary)
    for param, other in zip(ours.parameters(), ordinary.parameters(), strict=True):
        assert torch.equal(param.grad, other.grad)  # type: ignore[arg-type]
    assert_untouched(ours)
    plain(ours)
    assert all(param.grad is None for param in ours.parameters())


def test_contexts_nest() -> None:
    model = make()
    handle = inbackward.step_in_backward(SGD(model.parameters(), lr=0.1))
    with handle.accumulate():
        with handle.accumulate():
            plain(model)
        plain(model)
        assert_untouched(model)
    plain(model)
    assert all(param.grad is None for param in model.parameters())


def test_step_and_zero_grad_step_what_was_accumulated() -> None:
    standard, ours = make(), make()
    expected, handed = Adam(standard.parameters()), Adam(ours.parameters())
    with inbackward.step_in_backward(handed).accumulate():
        plain(ours)
    plain(standard)
    for optimizer in (expected, handed):
        optimizer.step()
        optimizer.zero_grad()
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


def test_one_of_two_optimizers_of_a_parameter_is_refused() -> None:
    model = make()
    first, second = (inbackward.step_in_backward(SGD(model.parameters(), lr=0.1)) for _ in range(2))
    with first.accumulate(), pytest.raises(RuntimeError, match="Accumulate with all of them"):
        plain(model)
    assert_untouched(model)
    model.zero_grad()
    with first.accumulate(), second.accumulate():
        plain(model)
    assert_untouched(model)


def test_entering_inside_backward_is_refused() -> None:
    model = make()
    handle = inbackward.step_in_backward(SGD(model.parameters(), lr=0.1))

    def enter(_: torch.Tensor) -> None:
        with handle.accumulate():
            pass

    model.first.bias.register_hook(enter)
    with pytest.raises(RuntimeError, match="Cannot begin to accumulate"):
        plain(model)
