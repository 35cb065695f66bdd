"""Executes the events of `plan.events.graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import functional_call

from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from torch import Tensor

    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.Forward)
def _(event: events.Forward, run: TrainingRun) -> None:
    run.losses.append(run.loss(run.next_batch(), skip=event.skip))


@execute.register(events.BackwardThrough)
def _(event: events.BackwardThrough, run: TrainingRun) -> None:
    loss = run.losses[event.forward]
    if not event.retain_graph:
        run.losses[event.forward] = None
    kwargs = {"retain_graph": True} if event.retain_graph else {}
    run.method.backward(run.model, lambda: loss, **kwargs)  # type: ignore[arg-type,return-value]


@execute.register(events.ComputeGradients)
def _(event: events.ComputeGradients, run: TrainingRun) -> None:
    batch = run.next_batch()
    if event.by == "torch.autograd.grad":
        torch.autograd.grad(run.loss(batch), list(run.model.parameters()))
    else:
        params = dict(run.model.named_parameters())
        torch.func.grad(lambda params: _functional_loss(run, params, batch))(params)


@execute.register(events.FunctionalBackward)
def _(event: events.FunctionalBackward, run: TrainingRun) -> None:
    params = {
        name: param.detach().clone().requires_grad_() if name in event.replaced else param
        for name, param in run.model.named_parameters()
    }
    batch = run.next_batch()
    run.method.backward(run.model, lambda: _functional_loss(run, params, batch))


@execute.register(events.PenalizedBackward)
def _(event: events.PenalizedBackward, run: TrainingRun) -> None:
    batch = tuple(x.requires_grad_() for x in run.next_batch())
    penalized = batch if event.of == "inputs" else tuple(run.model.parameters())

    def compute_loss() -> Tensor:
        loss = run.loss(batch)
        grads = torch.autograd.grad(loss, penalized, create_graph=True)
        return loss + torch.stack([grad.square().sum() for grad in grads]).sum()

    run.method.backward(run.model, compute_loss)


@execute.register(events.AutocastBackward)
def _(event: events.AutocastBackward, run: TrainingRun) -> None:
    batch = run.next_batch()

    def compute_loss() -> Tensor:
        with torch.autocast(run.device.type, getattr(torch, event.dtype)):
            return run.loss(batch)

    run.method.backward(run.model, compute_loss)


@execute.register(events.Compile)
def _(event: events.Compile, run: TrainingRun) -> None:
    # Else this run would use code that another run has compiled.
    torch._dynamo.reset()  # noqa: SLF001 (a module that torch documents, whatever its name)
    run.model.compile(backend=event.backend)


def _functional_loss(run: TrainingRun, params: dict[str, Tensor], batch: tuple[Tensor, ...]) -> Tensor:
    return run.loss(batch, forward=lambda *inputs: functional_call(run.model, params, inputs))
