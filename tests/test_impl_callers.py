"""Who runs backward, and on which losses: pipeline schedules, scaled losses, a second backward over a graph."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe, ScheduleInterleavedZeroBubble

import inbackward
from impl_support import assert_untouched, attached, batch, make, on_ranks


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(RuntimeError) as raised:
        call()
    return str(raised.value)


@pytest.fixture
def scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=1024.0)


def test_a_scaled_loss_is_refused(scaler: torch.amp.GradScaler) -> None:
    model = attached()
    loss = model(batch()).square().mean()
    assert_expected_inline(
        message_of(lambda: scaler.scale(loss).backward()),
        """\
The loss was scaled by a GradScaler, and so are the gradients. Instead of scaler.scale(loss).backward() and scaler.step(optimizer), call inbackward.backward(loss, optimizer, scaler=scaler), where optimizer was handed over by inbackward.step_in_backward; or train in bfloat16 without a scaler. The optimizer of parameter 'last.bias' of shape (4,) has stepped nothing in this backward. Gradients may be there: call optimizer.zero_grad() before you go on.""",  # noqa: E501
    )
    assert_untouched(model)


@pytest.mark.parametrize(
    "total",
    [
        lambda scaler, losses: scaler.scale(losses[0]) / 4,
        lambda scaler, losses: losses[0] + scaler.scale(losses[1]),
        lambda scaler, losses: sum(scaler.scale(losses)),
    ],
    ids=["divided", "one-of-two", "list"],
)
def test_a_loss_that_contains_a_scaled_one_is_refused(
    scaler: torch.amp.GradScaler, total: Callable[[torch.amp.GradScaler, list[torch.Tensor]], torch.Tensor]
) -> None:
    model = attached()
    losses = [model(batch(step)).square().mean() for step in range(2)]
    assert "scaled by a GradScaler" in message_of(total(scaler, losses).backward)
    assert_untouched(model)


def test_a_scaler_elsewhere_disturbs_nobody(scaler: torch.amp.GradScaler) -> None:
    """Neither a loss of another model, nor a factor of the same value, nor a scaler that is disabled."""
    scaler.scale(make()(batch()).sum()).backward()
    model = attached()
    (model(batch()).square().mean() * torch.tensor(1024.0)).backward()
    torch.amp.GradScaler("cpu", enabled=False).scale(model(batch()).square().mean()).backward()
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0}, {"scaler": True}], ids=["plain", "clipped", "scaled"])
def test_a_loss_that_is_scaled_already_is_refused_by_backward(
    scaler: torch.amp.GradScaler, options: dict[str, Any]
) -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inbackward.step_in_backward(optimizer)
    loss = scaler.scale(model(batch()).square().mean())
    with pytest.raises((RuntimeError, ValueError), match="scaled by a GradScaler"):
        inbackward.backward(loss, optimizer, **{**options, **({"scaler": scaler} if "scaler" in options else {})})
    assert_untouched(model)


def test_scaled_micro_batches_add_up(scaler: torch.amp.GradScaler) -> None:
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = inbackward.step_in_backward(optimizer)
    with handle.accumulate():
        scaler.scale(model(batch()).square().mean()).backward()
    inbackward.backward(model(batch(1)).square().mean(), optimizer, scaler=scaler)
    assert all(param.grad is None for param in model.parameters())


def test_another_optimizer_steps_nothing_of_a_scaled_loss(scaler: torch.amp.GradScaler) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    given, other = (torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model)
    inbackward.step_in_backward(given)
    inbackward.step_in_backward(other)
    before = copy.deepcopy(model.state_dict())
    loss = model(batch()).square().mean()
    assert "scaled by a GradScaler" in message_of(lambda: inbackward.backward(loss, given, scaler=scaler))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def second_backward(model: nn.Module) -> Callable[[], None]:
    outputs = model(batch()).square()
    outputs[0].mean().backward(retain_graph=True)
    return lambda: outputs[1].mean().backward()


@pytest.mark.parametrize("bucket_bytes", [None, 0, 4 << 20], ids=["applied", "each", "bucket"])
def test_a_second_backward_over_a_graph_tells_of_the_step(bucket_bytes: int | None) -> None:
    model = make()
    if bucket_bytes is None:
        inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), {})
    else:
        inbackward.step_in_backward(torch.optim.Adam(model.parameters()), bucket_bytes)
    with pytest.raises(RuntimeError, match=r"parameter 'last\.weight' .* it was stepped .* handle\.accumulate\(\)"):
        second_backward(model)()


def test_a_second_backward_that_needs_no_parameter_steps_twice() -> None:
    model = nn.Linear(4, 4)
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    second_backward(model)()
    assert model.weight.grad is None


class Straight(torch.autograd.Function):
    """Saves what its backward does not read."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return weight.sign()

    @staticmethod
    def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


def test_what_a_custom_function_does_not_read_raises_nothing() -> None:
    weight = nn.Parameter(torch.ones(3))
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, [weight], {"lr": 0.1})
    loss = Straight.apply(weight).sum()  # type: ignore[no-untyped-call]
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.8))


def test_a_third_backward_gets_torchs_own_error() -> None:
    """The graph is freed; that is no matter of steps."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight.requires_grad_(False)
    inbackward.step_in_backward(torch.optim.SGD(model.parameters(), lr=0.1))
    loss = model(batch()).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert "backward through the graph a second time" in message_of(loss.backward)


def test_what_explains_a_stale_graph_does_not_keep_it() -> None:
    model = attached()
    features = batch().requires_grad_()
    loss = model(features).square().mean()
    loss.backward(retain_graph=True)
    saved = weakref.ref(features)
    del features, loss
    gc.collect()
    assert saved() is None


@on_ranks(1)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_pipeline_schedule_is_refused_before_a_step(layers: int) -> None:
    model, optimizers = pipeline_of(layers)
    for optimizer in optimizers:
        inbackward.step_in_backward(optimizer)
    assert_schedule_refused(model, run_schedule)


@on_ranks(1)
def test_a_zero_bubble_schedule_is_refused() -> None:
    """For the last stage it calls `torch.autograd.grad`, which accumulates nothing, and sets gradients by itself."""
    model, _ = pipeline_of(2)
    inbackward.step_in_backward(torch.optim.SGD(model[1].parameters(), lr=0.1))
    assert_schedule_refused(model, run_zero_bubble)


@on_ranks(1)
def test_a_pipeline_schedule_of_a_sharded_stage_is_refused() -> None:
    """FSDP2 reduces gradients outside of backward there."""
    model, _ = pipeline_of(2)
    fully_shard(model)
    inbackward.step_in_backward(torch.optim.SGD(model.parameters(), lr=0.1))
    assert_schedule_refused(model, run_schedule)


@on_ranks(1)
def test_a_gradient_that_is_reduced_outside_of_backward_is_refused() -> None:
    model: Any = pipeline_of(2)[0]
    fully_shard(model)
    inbackward.step_in_backward(torch.optim.SGD(model.parameters(), lr=0.1))
    model.set_requires_gradient_sync(False)
    model(batch()).square().mean().backward()
    model.set_requires_gradient_sync(True)
    (group,) = fully_shard.state(model)._fsdp_param_groups  # type: ignore[attr-defined]
    assert "reduced the gradient outside of backward" in message_of(group.post_backward)


@on_ranks(1)
def test_gradients_of_other_schedules_disturb_nobody() -> None:
    """`torch.autograd.grad` of one's own calls the same hook."""
    model, (optimizer,) = pipeline_of(2)
    inbackward.step_in_backward(optimizer)
    grads = torch.autograd.grad(model(batch()).sum(), list(model.parameters()))
    assert all(grad is not None for grad in grads)


@on_ranks(1)
def test_a_pipeline_schedule_trains_while_gradients_accumulate() -> None:
    ours, expected = pipeline_of(2), pipeline_of(2)
    (optimizer,) = ours[1]
    handle = inbackward.step_in_backward(optimizer)
    for _ in range(3):
        with handle.accumulate():
            run_schedule(ours[0])
        run_schedule(expected[0])
        for each in (optimizer, *expected[1]):
            each.step()
            each.zero_grad()
    torch.testing.assert_close(ours[0].state_dict(), expected[0].state_dict(), rtol=0, atol=0)


def assert_schedule_refused(model: nn.Module, run: Callable[[nn.Module], None]) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError) as raised:
        run(model)
    error = raised.value.__cause__ or raised.value  # torch raises its own from that of a stage
    assert "A pipeline schedule runs backward for each micro-batch" in str(error)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def pipeline_of(layers: int) -> tuple[nn.Sequential, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])
    return model, [torch.optim.Adam(model.parameters(), lr=0.1)]


def run_schedule(model: nn.Module) -> None:
    stage = PipelineStage(model, 0, 1, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 2, loss_fn=nn.functional.mse_loss)
    schedule.step(batch().repeat(2, 1)[:4], target=torch.zeros(4, 4))


def run_zero_bubble(model: nn.Module) -> None:
    stages = [PipelineStage(layer, number, 2, torch.device("cpu")) for number, layer in enumerate(model.children())]
    schedule = ScheduleInterleavedZeroBubble(stages, 2, loss_fn=nn.functional.mse_loss)  # type: ignore[arg-type]
    schedule.step(batch().repeat(2, 1)[:4], target=torch.zeros(4, 4))
