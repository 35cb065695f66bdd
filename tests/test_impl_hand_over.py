"""Handing over an ordinary optimizer: what it follows, survives and gives back."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import inbackward
from impl_support import batch, make, plain

BUCKETS = pytest.mark.parametrize("bucket_bytes", [0, 64, 4 << 20])

Change = Callable[[int, nn.Module, Optimizer], object]


def assert_trains_alike(
    build: Callable[[Any], Optimizer],
    bucket_bytes: int,
    change: Change = lambda *_: None,
    run: Callable[[Any, int], object] = plain,
    make_model: Callable[[], nn.Module] = make,
) -> None:
    """Trains a model by the standard loop and one by an optimizer handed over; `change` changes both after a step."""
    standard, ours = make_model(), make_model()
    expected, handed = build(standard), build(ours)
    inbackward.step_in_backward(handed, bucket_bytes)
    for step in range(4):
        run(standard, step)
        expected.step()
        expected.zero_grad()
        run(ours, step)
        assert all(param.grad is None for group in handed.param_groups for param in group["params"])
        for model, optimizer in ((standard, expected), (ours, handed)):
            change(step, model, optimizer)
    for param, other in zip(ours.parameters(), standard.parameters(), strict=True):
        assert torch.equal(param, other)
    states = handed.state_dict()["state"], expected.state_dict()["state"]
    torch.testing.assert_close(*states, rtol=0, atol=0)


CLASSES = [
    optimizer_class
    for optimizer_class in vars(torch.optim).values()
    if isinstance(optimizer_class, type)
    and issubclass(optimizer_class, Optimizer)
    and optimizer_class not in {Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam}
]


def matrices() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False))


def embeddings() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 3, sparse=True), nn.Embedding(5, 3, sparse=True))


def look_up(model: Any, step: int) -> None:
    (model[0](torch.tensor([step, 1, 1])) * model[1](torch.tensor([step, 0, 2]))).pow(2).sum().backward()


@BUCKETS
@pytest.mark.parametrize("optimizer_class", CLASSES, ids=lambda each: each.__name__)
def test_every_class_of_torch_trains_as_in_the_standard_loop(optimizer_class: Any, bucket_bytes: int) -> None:
    make_model = matrices if optimizer_class.__name__ == "Muon" else make
    assert_trains_alike(lambda model: optimizer_class(model.parameters()), bucket_bytes, make_model=make_model)


@BUCKETS
def test_sparse_gradients(bucket_bytes: int) -> None:
    assert_trains_alike(
        lambda model: torch.optim.SparseAdam(model.parameters()), bucket_bytes, run=look_up, make_model=embeddings
    )


def test_a_closure_is_refused() -> None:
    with pytest.raises(TypeError, match="closure"):
        inbackward.step_in_backward(torch.optim.LBFGS(make().parameters()))


def grouped(model: Any) -> Optimizer:
    params = list(model.named_parameters())
    return AdamW([{"params": params[:4], "lr": torch.tensor(0.1)}, {"params": params[4:], "weight_decay": 0.5}])


def moved_to_another_group(step: int, _: nn.Module, optimizer: Optimizer) -> None:
    first, second = optimizer.param_groups
    if step == 1:
        first["params"].append(second["params"].pop(0))


def reversed_groups(step: int, _: nn.Module, optimizer: Optimizer) -> None:
    if step == 1:
        optimizer.param_groups.reverse()


def frozen_and_thawed(step: int, model: Any, _: Optimizer) -> None:
    model.spare.weight.requires_grad_(step == 2)


def reloaded(step: int, _: nn.Module, optimizer: Optimizer) -> None:
    if step == 1:
        saved = copy.deepcopy(optimizer.state_dict())
        saved["param_groups"][0]["lr"] = 0.3
        optimizer.load_state_dict(saved)


@BUCKETS
@pytest.mark.parametrize("change", [moved_to_another_group, reversed_groups, frozen_and_thawed, reloaded])
def test_what_changes_between_steps_is_followed(change: Change, bucket_bytes: int) -> None:
    assert_trains_alike(grouped, bucket_bytes, change)


@BUCKETS
def test_a_group_added_later_is_followed(bucket_bytes: int) -> None:
    def add(step: int, model: Any, optimizer: Optimizer) -> None:
        if step == 1:
            optimizer.add_param_group({"params": [*model.last.parameters()], "lr": 0.5})
        model.last.zero_grad()

    assert_trains_alike(lambda model: Adam([*model.first.parameters()]), bucket_bytes, add)


@BUCKETS
@pytest.mark.parametrize("index", [0, -1])
def test_a_parameter_that_the_groups_drop_keeps_its_gradient(bucket_bytes: int, index: int) -> None:
    model = make()
    optimizer = SGD(model.parameters(), lr=0.1)
    inbackward.step_in_backward(optimizer, bucket_bytes)
    plain(model)
    param = optimizer.param_groups[0]["params"].pop(index)
    before = param.detach().clone()
    plain(model)
    assert torch.equal(param, before)
    assert [each is param for each in model.parameters() if each.grad is not None] == [True]


@BUCKETS
def test_two_optimizers_step_a_shared_parameter_in_order(bucket_bytes: int) -> None:
    standard, ours = make(), make()

    def build(model: nn.Module) -> list[Optimizer]:
        params = [*model.parameters()]
        return [SGD(params[:6], lr=0.1, momentum=0.9), Adam(params[3:])]

    first, second = build(ours)
    inbackward.step_in_backward(first, bucket_bytes)
    inbackward.step_in_backward(second, 100)
    optimizers = build(standard)
    for step in range(4):
        plain(ours, step)
        plain(standard, step)
        for optimizer in optimizers:
            optimizer.step()
        standard.zero_grad()
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@BUCKETS
def test_a_detached_parameter_is_left_alone(bucket_bytes: int) -> None:
    """Also where the optimizer has stepped it before."""
    model = make()
    inbackward.step_in_backward(SGD(model.parameters(), lr=0.1), bucket_bytes)
    plain(model)
    inbackward.detach(model.last.bias)
    before = model.last.bias.detach().clone()
    plain(model)
    assert torch.equal(model.last.bias, before)
    assert [name for name, param in model.named_parameters() if param.grad is not None] == ["last.bias"]


def test_remove_gives_the_ordinary_optimizer_back() -> None:
    model = make()
    optimizer = SGD(model.parameters(), lr=0.1)
    with inbackward.step_in_backward(optimizer) as handle:
        plain(model)
    handle.remove()
    plain(model)
    assert all(param.grad is not None for param in model.parameters())
    assert "add_param_group" not in vars(optimizer)
    with pytest.raises(RuntimeError, match="taken back"):
        handle.clip(value=1.0)
    with pytest.raises(ValueError, match="does not step inside backward"):
        inbackward.handle_of(optimizer)
    inbackward.step_in_backward(optimizer)
    handle.remove()
    assert inbackward.get_in_backward_optimizers(model) == [optimizer]


def test_what_changes_the_hand_over_is_refused_inside_backward() -> None:
    model = make()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = inbackward.step_in_backward(optimizer)
    calls: list[Callable[[], object]] = [
        handle.remove,
        handle.clip,
        handle.accumulate().__enter__,
        lambda: inbackward.detach(model),
        lambda: inbackward.step_in_backward(optimizer),
        lambda: inbackward.backward(torch.ones(()), optimizer, max_norm=1.0),
    ]

    def hook(_: torch.Tensor) -> None:
        for call in calls:
            with pytest.raises(RuntimeError, match="while backward runs"):
                call()

    model.first.weight.register_hook(hook)
    plain(model)


def test_handing_over_twice_is_refused() -> None:
    model = make()
    optimizer = SGD(model.parameters(), lr=0.1)
    inbackward.step_in_backward(optimizer)
    other = make()
    inbackward.apply_optimizer_in_backward(SGD, other.parameters(), {"lr": 0.1})
    for each in (optimizer, inbackward.get_in_backward_optimizers(other)[0]):
        with pytest.raises(ValueError, match="already"):
            inbackward.step_in_backward(each)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])  # noqa: S301
def test_a_copy_is_an_ordinary_optimizer(twin: Callable[[Any], Any]) -> None:
    model = make()
    optimizer = AdamW(model.parameters())
    inbackward.step_in_backward(optimizer)
    plain(model)
    other, ordinary = twin((model, optimizer))
    assert inbackward.get_in_backward_optimizers(other) == []
    plain(other)
    ordinary.step()
    plain(model)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    ordinary.add_param_group({"params": [torch.ones(2, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1


@BUCKETS
@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_freed_with_the_model(bucket_bytes: int, *, raises: bool) -> None:
    model = make()
    optimizer = AdamW(model.parameters())
    handle = inbackward.step_in_backward(optimizer, bucket_bytes)
    plain(model)
    if raises:
        model.first.weight.register_hook(lambda grad: grad.reshape(-1, 99))
        with pytest.raises(RuntimeError):
            plain(model)
    references = [weakref.ref(each) for each in (optimizer, *model.parameters())]
    del model, optimizer
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    with pytest.raises(RuntimeError, match="taken back"):
        handle.clip()


@BUCKETS
def test_the_backward_after_an_error_is_right(bucket_bytes: int) -> None:
    """What had not been stepped keeps its gradient, to which the next one is added."""
    model = make()
    optimizer = Adam(model.parameters())
    inbackward.step_in_backward(optimizer, bucket_bytes)

    def fail(*_: object) -> None:
        raise ValueError

    hook = model.spare.bias.register_hook(fail)
    with pytest.raises(ValueError):  # noqa: PT011
        plain(model)
    hook.remove()
    other = copy.deepcopy(model)
    ordinary = Adam(other.parameters())
    ordinary.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for param, source in zip(other.parameters(), model.parameters(), strict=True):
        param.grad = None if source.grad is None else source.grad.clone()
    plain(model, 1)
    plain(other, 1)
    ordinary.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@BUCKETS
def test_an_error_in_a_step_leaves_the_groups_whole(bucket_bytes: int) -> None:
    model = make()
    optimizer = Adam(model.parameters())
    inbackward.step_in_backward(optimizer, bucket_bytes)

    def fail(*_: object) -> None:
        raise ValueError

    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(ValueError):  # noqa: PT011
        plain(model)
    hook.remove()
    assert [*map(id, optimizer.param_groups[0]["params"])] == [*map(id, model.parameters())]
    plain(model)
    assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize(("what", "bucket_bytes"), [("model", 64), ("backward", 4 << 20), ("step", 64)])
def test_compiled(what: str, bucket_bytes: int) -> None:
    torch.compiler.reset()

    def step(model: nn.Module, number: int) -> None:
        forward = torch.compile(model, backend="eager") if what == "model" else model
        forward(batch(number)).pow(2).sum().backward()

    standard, ours = make(), make()
    expected, handed = Adam(standard.parameters()), Adam(ours.parameters())
    inbackward.step_in_backward(handed, bucket_bytes)

    def whole(number: int) -> None:
        step(ours, number)
        if what == "step":
            handed.step()
            handed.zero_grad()

    compiled = whole if what == "model" else torch.compile(whole, backend="eager")
    for number in range(3):
        plain(standard, number)
        expected.step()
        expected.zero_grad()
        compiled(number)
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


@BUCKETS
def test_two_threads_train_two_models(bucket_bytes: int) -> None:
    models = [make(), make()]
    made = [Adam(model.parameters()) for model in models]
    for optimizer in made:
        inbackward.step_in_backward(optimizer, bucket_bytes)
    errors: list[BaseException] = []

    def train(model: nn.Module) -> None:
        try:
            for step in range(20):
                plain(model, step)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=train, args=[model]) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    standard = make()
    expected = Adam(standard.parameters())
    for step in range(20):
        plain(standard, step)
        expected.step()
        expected.zero_grad()
    for model in models:
        assert all(map(torch.equal, model.parameters(), standard.parameters()))
    assert [len(optimizer.param_groups[0]["params"]) for optimizer in made] == [8, 8]


@pytest.mark.parametrize("bucket_bytes", [0, 100, 300, 1000])
def test_no_more_gradients_live_than_the_bucket_and_the_largest(bucket_bytes: int) -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(10)))
    inbackward.step_in_backward(SGD(model.parameters(), lr=0.1), bucket_bytes)
    grads: list[tuple[weakref.ref[Any], int]] = []
    live: list[int] = []

    def note(param: torch.Tensor) -> None:
        assert param.grad is not None
        grads.append((weakref.ref(param.grad), param.grad.nbytes))
        live.append(sum(size for grad, size in grads if grad() is not None))

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(note)
    model(torch.ones(2, 8)).sum().backward()
    assert max(live) <= bucket_bytes + max(param.nbytes for param in model.parameters())


def test_an_optimizer_without_parameters_is_followed() -> None:
    """Progressive unfreezing begins with one."""
    handed = SGD([{"params": []}], lr=0.5)
    inbackward.step_in_backward(handed)
    standard, ours = make(), make()
    handed.add_param_group({"params": [*ours.parameters()]})
    gc.collect()
    plain(ours)
    plain(standard)
    SGD(standard.parameters(), lr=0.5).step()
    assert all(map(torch.equal, ours.parameters(), standard.parameters()))


def test_what_wraps_an_optimizer_is_refused() -> None:
    class Wrapper(Optimizer):
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

    with pytest.raises(TypeError, match=r"wraps another optimizer, its attribute 'optimizer'\. Hand over that one"):
        inbackward.step_in_backward(Wrapper(SGD(make().parameters())))
