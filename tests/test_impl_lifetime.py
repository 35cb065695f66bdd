"""What an attachment holds and what holds it: nothing outlives the model, nothing ends up in a file or a copy."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import inbackward


def train() -> nn.Linear:
    model = nn.Linear(3, 3)
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), {})
    model(torch.randn(2, 3)).sum().backward()
    return model


def saved(thing: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(thing, file)
    return file.getvalue()


def test_all_dies_with_the_model() -> None:
    model = train()
    optimizer = inbackward.optimizers_of(model.weight)[0]
    state = optimizer.state[model.weight]["exp_avg"]
    watched = [weakref.ref(thing) for thing in (model, model.weight, optimizer, state)]
    del model, optimizer, state
    gc.collect()
    assert [reference() for reference in watched] == [None] * 4


def test_a_parameter_that_leaves_the_model_dies() -> None:
    """The others that were attached by the same call do not keep it."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, model.parameters(), {})
    model(torch.randn(2, 3)).sum().backward()
    weight = weakref.ref(model[0].weight)
    model[0] = nn.Identity()
    gc.collect()
    assert weight() is None
    model(torch.randn(2, 3)).sum().backward()


def test_rounds_of_attaching_and_dropping_leave_nothing() -> None:
    def rounds() -> int:
        for _ in range(50):
            train()
        gc.collect()
        return len(gc.get_objects())

    rounds()
    assert rounds() == rounds()


def test_listed_optimizers_outlive_the_model() -> None:
    model = train()
    optimizers = inbackward.get_in_backward_optimizers(model)
    del model
    gc.collect()
    (weight,) = optimizers[0].param_groups[0]["params"]
    assert inbackward.optimizers_of(weight) == optimizers[:1]


def test_a_deepcopy_is_a_plain_model() -> None:
    model = train()
    twin = copy.deepcopy(model)
    assert inbackward.get_in_backward_optimizers(twin) == []
    before = twin.weight.detach().clone()
    twin(torch.randn(2, 3)).sum().backward()
    assert twin.weight.grad is not None
    assert torch.equal(twin.weight, before)


@pytest.mark.parametrize("what", ["state_dict", "parameter", "module", "tensor"])
def test_files_hold_nothing_of_it(what: str) -> None:
    def pick(model: nn.Linear) -> Any:
        return {"state_dict": model.state_dict(), "parameter": model.weight, "module": model}[what]

    if what == "tensor":
        attached = torch.ones(3, requires_grad=True)
        inbackward.apply_optimizer_in_backward(torch.optim.Adam, [attached], {})
        file, plain = saved(attached), saved(torch.ones(3, requires_grad=True))
    else:
        model = train()
        file, plain = saved(pick(model)), saved(pick(copy.deepcopy(model)))
    assert len(file) == len(plain)
    torch.load(io.BytesIO(file), weights_only=what != "module")


def test_pickle_gives_a_plain_model() -> None:
    model = train()
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert torch.equal(twin.weight, model.weight)
    assert inbackward.get_in_backward_optimizers(twin) == []


def test_new_parameter_objects_are_not_trained() -> None:
    model = train()
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    before = model.weight.detach().clone()
    model(torch.randn(2, 3)).sum().backward()
    assert inbackward.get_in_backward_optimizers(model) == []
    assert torch.equal(model.weight, before)
    assert model.weight.grad is not None


def test_swapping_tensors_is_refused() -> None:
    """Torch would drop all hooks without a word, and training would stop."""
    model = train()
    with pytest.raises(RuntimeError, match="weakref"):
        torch.utils.swap_tensors(model.weight, nn.Parameter(torch.zeros(3, 3)))


def test_the_gradient_is_taken_over_not_copied() -> None:
    model = train()
    addresses: list[int] = []
    model.weight.register_hook(lambda grad: addresses.append(grad.data_ptr()))

    def accumulated(param: torch.Tensor) -> None:
        assert param.grad is not None
        addresses.append(param.grad.data_ptr())

    model.weight.register_post_accumulate_grad_hook(accumulated)
    model(torch.randn(2, 3)).sum().backward()
    assert addresses[0] == addresses[1]
