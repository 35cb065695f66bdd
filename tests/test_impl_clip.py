"""`inbackward.backward` and `Handle.clip`, against clipping and scaling in the standard loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import SGD, Adam, Optimizer
from torch.utils.checkpoint import checkpoint

import inbackward
from impl_support import assert_untouched, batch, make, plain

Loss = Callable[[Any, int], torch.Tensor]
Build = Callable[[Any], list[Optimizer]]
BUCKETS = pytest.mark.parametrize("bucket_bytes", [0, 64, 4 << 20])


def square(model: Any, step: int) -> torch.Tensor:
    loss: torch.Tensor = model(batch(step)).pow(2).sum()
    return loss


def one(model: nn.Module) -> list[Optimizer]:
    return [Adam(model.parameters(), lr=0.1)]


def several(model: nn.Module) -> list[Optimizer]:
    params = [*model.parameters()]
    return [SGD(params[:4], lr=0.1, momentum=0.9), Adam(params[4:])]


def scaling(**options: Any) -> GradScaler:
    return GradScaler("cpu", **{"init_scale": 3.7, "growth_interval": 2, **options})


def assert_trains_alike(
    loss: Loss = square,
    build: Build = one,
    bucket_bytes: int = 0,
    *,
    max_norm: float | None = 0.5,
    norm_type: float = 2.0,
    scaler: Callable[[], GradScaler | None] = lambda: None,
    make_model: Callable[[], nn.Module] = make,
    steps: int = 5,
) -> None:
    """Trains by both loops; norms, parameters, states and the scaler are the same to the bit."""
    standard, ours = make_model(), make_model()
    expected, handed = build(standard), build(ours)
    scalers = scaler(), scaler()
    for optimizer in handed:
        inbackward.step_in_backward(optimizer, bucket_bytes)
    params = [param for optimizer in expected for group in optimizer.param_groups for param in group["params"]]
    for step in range(steps):
        torch.manual_seed(step)
        norm = standard_step(loss(standard, step), expected, params, max_norm, norm_type, scalers[0])
        torch.manual_seed(step)
        found = inbackward.backward(loss(ours, step), handed, max_norm=max_norm, norm_type=norm_type, scaler=scalers[1])
        torch.testing.assert_close(found, norm, rtol=0, atol=0, equal_nan=True)
        assert scalers[0] is None or scalers[0].state_dict() == scalers[1].state_dict()  # type: ignore[union-attr]
        assert all(param.grad is None for optimizer in handed for param in optimizer.param_groups[0]["params"])
        for param, other in zip(ours.parameters(), standard.parameters(), strict=True):
            torch.testing.assert_close(param, other, rtol=0, atol=0, equal_nan=True)
    states = [[optimizer.state_dict()["state"] for optimizer in each] for each in (handed, expected)]
    torch.testing.assert_close(*states, rtol=0, atol=0, equal_nan=True)


def standard_step(  # noqa: PLR0917
    loss: torch.Tensor,
    optimizers: list[Optimizer],
    params: list[torch.Tensor],
    max_norm: float | None,
    norm_type: float,
    scaler: GradScaler | None,
) -> torch.Tensor | None:
    (loss if scaler is None else scaler.scale(loss)).backward()
    for optimizer in optimizers:
        if scaler is not None:
            scaler.unscale_(optimizer)
    norm = None if max_norm is None else nn.utils.clip_grad_norm_(params, max_norm, norm_type)
    for optimizer in optimizers:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
        optimizer.zero_grad()
    if scaler is not None:
        scaler.update()
    return norm


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf"), 0.5, 3])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1000.0, float("inf")])
def test_the_total_norm(norm_type: float, max_norm: float) -> None:
    assert_trains_alike(bucket_bytes=64, norm_type=norm_type, max_norm=max_norm, steps=2)


def mixed() -> nn.Module:
    model: Any = make()
    model.last.to(torch.bfloat16)
    model.complex = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    return model  # type: ignore[no-any-return]


def mixed_loss(model: Any, step: int) -> torch.Tensor:
    hidden = model.spare(model.norm(model.first(batch(step)).tanh()))
    loss: torch.Tensor = model.last(hidden.bfloat16()).float().pow(2).sum() + (model.complex * (step + 1j)).abs().sum()
    return loss


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("norm_type", [2.0, float("inf"), 0.5])
def test_several_dtypes(norm_type: float, order: int) -> None:
    def build(model: nn.Module) -> list[Optimizer]:
        return [SGD([*model.parameters()][::order], lr=0.1, momentum=0.9)]

    assert_trains_alike(mixed_loss, build, norm_type=norm_type, make_model=mixed)


@BUCKETS
@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("build", [one, several])
def test_a_scaler_skips_grows_and_backs_off(
    bucket_bytes: int, max_norm: float | None, bad: float, build: Build
) -> None:
    def loss(model: Any, step: int) -> torch.Tensor:
        return square(model, step) * (bad if step == 1 else 1)

    assert_trains_alike(loss, build, bucket_bytes, max_norm=max_norm, scaler=scaling)


@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_a_scaler_skips_only_the_optimizers_that_overflow(max_norm: float | None) -> None:
    def loss(model: Any, step: int) -> torch.Tensor:
        return square(model, step) + (model.last.bias * float("inf")).sum() if step == 1 else square(model, step)

    assert_trains_alike(loss, several, max_norm=max_norm, scaler=scaling)


def test_a_disabled_scaler() -> None:
    assert_trains_alike(scaler=lambda: scaling(enabled=False))


def test_a_scaler_with_sparse_gradients() -> None:
    def embedding() -> nn.Module:
        torch.manual_seed(0)
        return nn.Embedding(7, 3, sparse=True)

    assert_trains_alike(
        lambda model, step: model(torch.tensor([step, 1, 1])).pow(2).sum(),
        lambda model: [torch.optim.SparseAdam(model.parameters())],
        max_norm=None,
        scaler=scaling,
        make_model=embedding,
    )


@BUCKETS
@pytest.mark.parametrize("scaler", [lambda: None, scaling])
def test_unreached_and_frozen_parameters(bucket_bytes: int, scaler: Callable[[], GradScaler | None]) -> None:
    def loss(model: Any, step: int) -> torch.Tensor:
        model.norm.weight.requires_grad_(step % 2 == 0)
        total: torch.Tensor = model(batch(step), spare=step > 1).pow(2).sum()
        return total

    assert_trains_alike(loss, bucket_bytes=bucket_bytes, scaler=scaler)


def hooked() -> nn.Module:
    model = make()
    model.spare.weight.register_hook(lambda grad: grad * 3)

    def clamp(param: torch.Tensor) -> None:
        assert param.grad is not None
        param.grad.clamp_(-0.1, 0.1)

    model.last.weight.register_post_accumulate_grad_hook(clamp)
    return model


@BUCKETS
@pytest.mark.parametrize("make_model", [make, hooked])
def test_accumulated_gradients_are_part_of_it(bucket_bytes: int, make_model: Callable[[], Any]) -> None:
    standard, ours = make_model(), make_model()
    (expected,), (handed,) = one(standard), one(ours)
    handle = inbackward.step_in_backward(handed, bucket_bytes)
    for step in range(3):
        plain(standard, step, 1)
        standard(batch(step), spare=False).sum().backward()
        norm = nn.utils.clip_grad_norm_(standard.parameters(), 0.5)
        expected.step()
        expected.zero_grad()
        with handle.accumulate():
            plain(ours, step, 1)
        found = inbackward.backward(ours(batch(step), spare=False).sum(), handed, max_norm=0.5)
        assert torch.equal(found, norm)  # type: ignore[arg-type]
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


def test_other_gradients_are_accumulated_once() -> None:
    ordinary, ours = make(), make()
    optimizer = SGD(ours.first.parameters(), lr=0.1)
    inbackward.step_in_backward(optimizer)
    square(ordinary, 0).backward()
    inbackward.backward(square(ours, 0), optimizer, max_norm=0.5)
    assert torch.equal(ours.last.weight.grad, ordinary.last.weight.grad)  # type: ignore[arg-type]


def test_dropout_under_checkpointing() -> None:
    def loss(model: Any, step: int) -> torch.Tensor:
        def layers(x: torch.Tensor) -> Any:
            return nn.functional.dropout(model.spare(model.norm(model.first(x))))

        total: torch.Tensor = model.last(checkpoint(layers, batch(step), use_reentrant=False)).pow(2).sum()
        return total

    assert_trains_alike(loss)


def test_reentrant_checkpointing_is_refused_before_any_step() -> None:
    """Its parameters are not reached where backward is told its inputs."""
    model = make()
    (optimizer,) = one(model)
    inbackward.step_in_backward(optimizer)
    x = batch().requires_grad_()
    loss = model.last(checkpoint(lambda x: model.norm(model.first(x)), x, use_reentrant=True)).sum()
    with pytest.raises((RuntimeError, ValueError), match="use_reentrant=False"):
        inbackward.backward(loss, optimizer, max_norm=0.5)
    assert_untouched(model)


@pytest.mark.parametrize("scaler", [lambda: None, scaling])
def test_an_error_for_a_norm_that_is_not_finite_changes_nothing(scaler: Callable[[], GradScaler | None]) -> None:
    model = make()
    (optimizer,) = one(model)
    inbackward.step_in_backward(optimizer)
    with pytest.raises(RuntimeError, match="nan"):
        inbackward.backward(
            square(model, 0) * float("nan"), optimizer, max_norm=1.0, error_if_nonfinite=True, scaler=scaler()
        )
    assert_untouched(model)
    assert all(param.grad is None for param in model.parameters())


def test_an_error_while_measuring_changes_nothing() -> None:
    model = make()
    (optimizer,) = one(model)
    with inbackward.step_in_backward(optimizer).accumulate():
        plain(model)
    before = [param.grad for param in model.parameters()]
    values = [grad.clone() for grad in before if grad is not None]
    hook = model.spare.weight.register_hook(lambda grad: grad.reshape(-1, 99))
    with pytest.raises(RuntimeError):
        inbackward.backward(square(model, 0), optimizer, max_norm=1.0)
    hook.remove()
    assert_untouched(model)
    for param, value in zip(model.parameters(), values, strict=True):
        assert torch.equal(param.grad, value)  # type: ignore[arg-type]


def test_float16_gradients_are_not_unscaled() -> None:
    param = nn.Parameter(torch.ones(3, dtype=torch.float16))
    optimizer = SGD([param], lr=0.1)
    inbackward.step_in_backward(optimizer)
    with pytest.raises(ValueError, match="float16"):
        inbackward.backward(param.float().sum(), optimizer, scaler=scaling())
    assert torch.equal(param, torch.ones_like(param))


@BUCKETS
@pytest.mark.parametrize("options", [{"value": 0.05}, {"norm": 0.05}, {"norm": 0.05, "norm_type": float("inf")}])
def test_clipping_each_parameter_by_itself(bucket_bytes: int, options: dict[str, float]) -> None:
    standard, ours = make(), make()
    (expected,), (handed,) = one(standard), one(ours)
    handle = inbackward.step_in_backward(handed, bucket_bytes)
    for step in range(4):
        handle.clip(**(options if step < 3 else {}))
        plain(ours, step)
        plain(standard, step)
        for param in standard.parameters() if step < 3 else []:
            if "value" in options:
                nn.utils.clip_grad_value_(param, options["value"])
            else:
                nn.utils.clip_grad_norm_(param, options["norm"], options.get("norm_type", 2.0))
        expected.step()
        expected.zero_grad()
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@pytest.mark.parametrize("options", [{"value": -1.0}, {"norm": float("nan")}, {"value": 1.0, "norm": 1.0}])
def test_what_clip_does_not_take(options: dict[str, float]) -> None:
    handle = inbackward.step_in_backward(SGD(make().parameters(), lr=0.1))
    with pytest.raises((ValueError, RuntimeError)):
        handle.clip(**options)


def test_clipping_while_an_optimizer_accumulates_is_refused() -> None:
    model = make()
    (optimizer,) = one(model)
    with inbackward.step_in_backward(optimizer).accumulate(), pytest.raises(RuntimeError, match="accumulates"):
        inbackward.backward(square(model, 0), optimizer, max_norm=1.0)


def test_an_optimizer_given_twice_counts_once() -> None:
    model = make()
    (optimizer,) = one(model)
    inbackward.step_in_backward(optimizer)
    inbackward.backward(square(model, 0), [optimizer, optimizer], scaler=scaling())
    assert all(param.grad is None for param in model.parameters())


def test_hooks_that_draw_random_numbers_draw_the_same_in_both_passes() -> None:
    standard, ours = make(), make()
    expected, handed = Adam(standard.parameters()), Adam(ours.parameters())
    inbackward.step_in_backward(handed)
    for model in (standard, ours):
        for param in model.parameters():
            param.register_hook(lambda grad: grad + torch.randn_like(grad))
    torch.manual_seed(0)
    square(standard, 0).backward()
    norm = torch.nn.utils.clip_grad_norm_(standard.parameters(), 0.5)
    expected.step()
    torch.manual_seed(0)
    returned = inbackward.backward(square(ours, 0), handed, max_norm=0.5)
    assert returned is not None
    assert torch.equal(norm, returned)
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda model: [*model.parameters()][1:], ValueError, "lacks 1 parameters of the optimizers, and has 0"),
        (lambda model: [*model.parameters(), *nn.Linear(1, 1).parameters()], ValueError, "lacks 0 .* has 2"),
        (lambda model: model.named_parameters(), TypeError, "which is no tensor"),
    ],
)
def test_other_parameters_than_those_of_the_optimizers_are_refused(
    params: Callable[[nn.Module], Any], error: type[Exception], message: str
) -> None:
    model = make()
    optimizer = Adam(model.parameters())
    inbackward.step_in_backward(optimizer)
    with pytest.raises(error, match=message):
        inbackward.backward(square(model, 0), optimizer, max_norm=1.0, params=params(model))


@pytest.mark.parametrize("bucket_bytes", [0, 4 << 20])
def test_clipping_inside_inference_mode(bucket_bytes: int) -> None:
    """There the gradients are inference tensors, which nothing outside may change."""
    ours, expected = make(), make()
    handle = inbackward.step_in_backward(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), bucket_bytes)
    handle.clip(value=0.01)
    standard = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        loss = ours(batch(step)).square().mean()
        with torch.inference_mode():
            loss.backward()
        expected(batch(step)).square().mean().backward()
        torch.nn.utils.clip_grad_value_(expected.parameters(), 0.01)
        standard.step()
        standard.zero_grad()
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), rtol=0, atol=0)
