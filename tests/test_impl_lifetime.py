"""What an attachment holds and what holds it, as far as the chapters lifetime and state do not show it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

import inbackward
from impl_support import Net, attach, attached, plain


def trained() -> Net:
    model = attached()
    plain(model)
    return model


def test_a_parameter_that_leaves_the_model_is_collected() -> None:
    """The others that were attached by the same call do not keep it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    attach(model)
    plain(model)
    weight = weakref.ref(model[0].weight)
    model[0] = nn.Identity()
    gc.collect()
    assert weight() is None
    plain(model)


def test_listed_optimizers_outlive_the_model() -> None:
    model = trained()
    optimizers = inbackward.get_in_backward_optimizers(model)
    del model
    gc.collect()
    (weight,) = optimizers[0].param_groups[0]["params"]
    assert inbackward.optimizers_of(weight) == optimizers[:1]


def tensor() -> torch.Tensor:
    param = torch.ones(3, requires_grad=True)
    inbackward.apply_optimizer_in_backward(torch.optim.Adam, [param], {})
    return param


@pytest.mark.parametrize("make", [trained, tensor, lambda: trained().state_dict(), lambda: trained().last.weight])
def test_saving_warns_of_nothing_and_writes_a_plain_file(make: Callable[[], object]) -> None:
    thing = make()
    files = [io.BytesIO(), io.BytesIO()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(thing, files[0])
    inbackward.detach(thing if isinstance(thing, nn.Module | torch.Tensor) else [])
    torch.save(copy.deepcopy(thing), files[1])
    assert len(files[0].getvalue()) == len(files[1].getvalue())


def test_pickle_gives_a_model_without_optimizers() -> None:
    model = trained()
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert torch.equal(twin.last.weight, model.last.weight)
    assert inbackward.get_in_backward_optimizers(twin) == []
