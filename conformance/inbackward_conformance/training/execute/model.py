"""Executes the events of `plan.events.model`."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.Cast)
def _(event: events.Cast, run: TrainingRun) -> None:
    run.dtype = getattr(torch, event.dtype)
    with _swapping(event.swap):
        run.model.to(run.dtype)


@execute.register(events.SetData)
def _(event: events.SetData, run: TrainingRun) -> None:
    param = run.model.get_parameter(event.param)
    halved = param.detach() * 0.5
    if event.by == "data":
        param.data = halved
    else:
        with torch.no_grad():
            param.set_(halved)  # type: ignore[call-overload]


@execute.register(events.Freeze)
def _(event: events.Freeze, run: TrainingRun) -> None:
    for name in event.params:
        run.model.get_parameter(name).requires_grad_(False)


@execute.register(events.Thaw)
def _(event: events.Thaw, run: TrainingRun) -> None:
    for name in event.params:
        run.model.get_parameter(name).requires_grad_(True)


@execute.register(events.LoadWeights)
def _(event: events.LoadWeights, run: TrainingRun) -> None:
    halved = {
        name: value * 0.5 if value.is_floating_point() else value.clone()
        for name, value in run.model.state_dict().items()
    }
    with _swapping(event.swap):
        run.model.load_state_dict(halved, assign=event.assign)


@execute.register(events.ToEmpty)
def _(event: events.ToEmpty, run: TrainingRun) -> None:
    run.model.to_empty(device=event.device or run.device)
    if not event.device:
        with torch.no_grad():
            for number, param in enumerate(run.model.parameters()):
                param.fill_((-1) ** number * 0.1 * (number + 1))


@execute.register(events.ReplaceParameter)
def _(event: events.ReplaceParameter, run: TrainingRun) -> None:
    owner, _, attribute = event.param.rpartition(".")
    param = run.model.get_parameter(event.param)
    setattr(run.model.get_submodule(owner), attribute, nn.Parameter(param.detach().clone()))


@execute.register(events.SwapParameters)
def _(event: events.SwapParameters, run: TrainingRun) -> None:
    first, second = run.model.get_parameter(event.first), run.model.get_parameter(event.second)
    for name, param in ((event.first, second), (event.second, first)):
        owner, _, attribute = name.rpartition(".")
        setattr(run.model.get_submodule(owner), attribute, param)


@execute.register(events.ReplaceByCopy)
def _(event: events.ReplaceByCopy, run: TrainingRun) -> None:
    duplicate: nn.Module = copy.deepcopy(run.model.get_submodule(event.submodule))
    if event.submodule:
        owner, _, attribute = event.submodule.rpartition(".")
        setattr(run.model.get_submodule(owner), attribute, duplicate)
    else:
        run.model = duplicate


@contextmanager
def _swapping(swap: bool) -> Iterator[None]:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(swap or before)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@execute.register(events.Detach)
def _(event: events.Detach, run: TrainingRun) -> None:
    run.method.detach(run.model)
