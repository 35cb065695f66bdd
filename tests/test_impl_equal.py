"""Situations in which the reference implementation must give, bit for bit, what the standard loop gives."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import inbackward


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.norm(self.first(x).tanh())
        return self.last(hidden)  # type: ignore[no-any-return]


Run = Callable[[Net], Any]


def make() -> Net:
    torch.manual_seed(0)
    return Net()


def batch() -> torch.Tensor:
    return torch.randn(2, 4, requires_grad=True)


def train_both(
    run: Run,
    prepare: Run = lambda _: None,
    optimizer_class: Any = torch.optim.Adam,
    options: dict[str, Any] | None = None,
    params: Callable[[Net], Any] = nn.Module.parameters,
) -> tuple[Net, Net]:
    """Trains two equal models for four steps, inside backward and by the standard loop."""
    options = {"lr": 0.01, "weight_decay": 0.1} if options is None else options
    ours, standard = make(), make()
    prepare(ours)
    prepare(standard)
    inbackward.apply_optimizer_in_backward(optimizer_class, params(ours), options)
    optimizer = optimizer_class(params(standard), **options)
    for seed in range(4):
        torch.manual_seed(seed)
        run(ours)
        torch.manual_seed(seed)
        run(standard)
        optimizer.step()
        optimizer.zero_grad()
    return ours, standard


def assert_equal(ours: nn.Module, standard: nn.Module) -> None:
    for (name, mine), expected in zip(ours.named_parameters(), standard.parameters(), strict=True):
        assert torch.equal(mine, expected), name
        assert mine.grad is None, name


def plain(model: Net) -> None:
    model(batch()).pow(2).sum().backward()


def detached_elsewhere(model: Net) -> None:
    hidden = linear(model.first(batch()), model.last.weight.detach())
    model.last(hidden.tanh()).pow(2).sum().backward()


def data_elsewhere(model: Net) -> None:
    hidden = linear(model.first(batch()), model.last.weight.data)
    model.last(hidden.tanh()).pow(2).sum().backward()


def reentrant(model: Net) -> None:
    checkpoint(model, batch(), use_reentrant=True).pow(2).sum().backward()


def reentrant_three_deep(model: Net) -> None:
    def second(x: torch.Tensor) -> Any:
        return checkpoint(model.last, checkpoint(model.norm, x, use_reentrant=True), use_reentrant=True)

    def first(x: torch.Tensor) -> Any:
        return checkpoint(second, model.first(x), use_reentrant=True)

    checkpoint(first, batch(), use_reentrant=True).pow(2).sum().backward()


def reentrant_with_data_outside(model: Net) -> None:
    """The nested pass completes the gradients while the outer one still needs both weights."""
    hidden = linear(linear(batch(), model.first.weight.data), model.last.weight.data)
    checkpoint(model, hidden.tanh(), use_reentrant=True).pow(2).sum().backward()


def shared_and_checkpointed(model: Net) -> None:
    checkpoint(model, model(batch()), use_reentrant=False).pow(2).sum().backward()


def retained(model: Net) -> None:
    model(batch()).pow(2).sum().backward(retain_graph=True)


def gradient_penalty(model: Net) -> None:
    x = batch()
    loss = model(x).pow(2).sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + slope.pow(2).sum()).backward()


def create_graph(model: Net) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward\\(\\) with create_graph=True")
        model(batch()).pow(2).sum().backward(create_graph=True)


def only_one_input(model: Net) -> None:
    model(batch()).pow(2).sum().backward(inputs=[model.first.weight])


def grad_alone(model: Net) -> None:
    torch.autograd.grad(model(batch()).sum(), list(model.parameters()))


def backward_in_a_hook(model: Net) -> None:
    hidden = model.first(batch())

    def train_the_last(_: torch.Tensor) -> None:
        with torch.enable_grad():
            model.last(torch.ones(1, 4)).sum().backward()

    hidden.register_hook(train_the_last)
    hidden.pow(2).sum().backward()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # the innermost checkpoint's
@pytest.mark.parametrize(
    "run",
    [
        plain,
        detached_elsewhere,
        data_elsewhere,
        reentrant,
        reentrant_three_deep,
        reentrant_with_data_outside,
        shared_and_checkpointed,
        retained,
        gradient_penalty,
        create_graph,
        only_one_input,
        grad_alone,
        backward_in_a_hook,
    ],
)
def test_equals_the_standard_loop(run: Run) -> None:
    assert_equal(*train_both(run))


@pytest.mark.parametrize("options", [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9, "foreach": True}])
@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_listed_twice_equals_the_list(options: dict[str, Any]) -> None:
    def params(model: Net) -> list[torch.Tensor]:
        return [model.first.weight, model.last.weight, model.first.weight, model.last.bias, model.last.weight]

    ours, standard = train_both(plain, optimizer_class=torch.optim.SGD, options=options, params=params)
    assert torch.equal(ours.first.weight, standard.first.weight)
    assert torch.equal(ours.last.weight, standard.last.weight)


def test_groups_keep_their_own_options() -> None:
    def params(model: Net) -> list[dict[str, Any]]:
        return [
            {"params": model.first.parameters(), "lr": 0.5},
            {"params": [*model.norm.parameters(), *model.last.parameters()], "betas": (0.5, 0.6)},
        ]

    assert_equal(*train_both(plain, params=params))


def test_a_gradient_from_before_counts_even_where_backward_does_not_reach() -> None:
    def prepare(model: Net) -> None:
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        model.last.requires_grad_(requires_grad=False)

    def first_layer(model: Net) -> None:
        model.first(batch()).pow(2).sum().backward()

    assert_equal(*train_both(first_layer, prepare))


def test_frozen_parameters_thaw() -> None:
    def freeze(model: Net) -> None:
        model.first.requires_grad_(requires_grad=False)

    def thaw_and_run(model: Net) -> None:
        plain(model)
        model.requires_grad_(requires_grad=True)

    assert_equal(*train_both(thaw_and_run, freeze))


def test_other_dtype_and_other_data_go_on_training() -> None:
    def double_and_run(model: Net) -> None:
        model.double()
        model.last.bias.data = model.last.bias.data * 2
        model(torch.randn(2, 4, dtype=torch.float64)).pow(2).sum().backward()

    assert_equal(*train_both(double_and_run, optimizer_class=torch.optim.SGD, options={"lr": 0.1}))


def test_views_of_one_buffer() -> None:
    """They are stepped at the end of backward, and to the same numbers."""

    def flatten(model: Net) -> None:
        nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()).detach(), model.parameters())

    assert_equal(*train_both(plain, flatten))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("first", ["compile", "attach"])
def test_compiled(backend: str, first: str) -> None:
    compiled: dict[Net, Any] = {}

    def compile_it(model: Net) -> None:
        compiled[model] = torch.compile(model, backend=backend)

    def run(model: Net) -> None:
        if model not in compiled:
            compile_it(model)
        compiled[model](torch.randn(2, 4)).pow(2).sum().backward()

    torch._dynamo.reset()
    try:
        assert_equal(*train_both(run, compile_it if first == "compile" else lambda _: None))
    finally:
        torch._dynamo.reset()


def test_threads_train_models_at_once() -> None:
    """Three models in three threads, with nested passes, are each as if alone."""
    start = threading.Barrier(3)
    results: list[nn.Module] = []

    def train(model: Net, step: Callable[[], object]) -> None:
        for _ in range(20):
            x = torch.linspace(0, 1, 8).reshape(2, 4).requires_grad_()
            checkpoint(model, x, use_reentrant=True).pow(2).sum().backward()
            step()

    def work(model: Net) -> None:
        inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), {})
        start.wait()
        train(model, lambda: None)
        results.append(model)

    standard = make()
    threads = [threading.Thread(target=work, args=(copy.deepcopy(standard),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    optimizer = torch.optim.Adam(standard.parameters())

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    train(standard, step)
    assert len(results) == 3
    for model in results:
        assert_equal(model, standard)
