"""The state of one training run, which events change."""

from __future__ import annotations

import io
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inbackward_conformance.catalogue.build import build_model, dtype_of
from inbackward_conformance.catalogue.optimizers import bind_options, find_optimizer_class
from inbackward_conformance.catalogue.scaler import build_scaler
from inbackward_conformance.catalogue.selected import is_selected
from inbackward_conformance.plan import ALL, Assignment, Group, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.pipelining.schedules import _PipelineSchedule  # the base of all, and there is no other
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment
    from inbackward_conformance.training.in_backward import InBackward
    from inbackward_conformance.training.standard_loop import StandardLoop


class TrainingRun:
    """One training of a plan's model by one method.

    Attributes:
        wrapper: the module to call in forward, such as DDP; None for the model itself.
        attached: whether the assignments of the plan are attached.
        schedules: the started schedulers.
        saved: the file of the last `Save`.
        scaler: the gradient scaler, for events that scale the loss.
        losses: the losses of all `Forward`s; None after the last backward through one.
        pipeline: the schedule of the stages that this rank has; None for a model that is in one piece.
        stages: these stages.
    """

    def __init__(self, plan: Plan, method: StandardLoop | InBackward, device: str, rank: int = 0) -> None:
        self.plan = plan
        self.method = method
        self.rank = rank
        self.wrapper: nn.Module | None = None
        self.attached = False
        self.device = torch.device(device)
        self.model = build_model(plan, self.device)
        self.dtype = dtype_of(plan)
        self.schedules: list[Any] = []
        self.saved = io.BytesIO()
        self.losses: list[Tensor | None] = []
        self.scaler = build_scaler(self.device)
        self.pipeline: _PipelineSchedule | None = None
        self.stages: list[PipelineStage] = []
        self._batches_drawn = 0
        self._batches = plan.ranks.batches_of(rank) if plan.ranks else 0

    @cached_property
    def mesh(self) -> DeviceMesh:
        """The device mesh of the plan's ranks."""
        from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 (loads much that few plans need)

        assert self.plan.ranks, "an event of distributed training in a plan without ranks"
        sizes = self.plan.ranks.mesh
        return init_device_mesh(self.device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))

    def next_batch(self) -> tuple[Tensor, ...]:
        """Draw the next batch, whose values depend only on the seed, the number of batches, and the rank."""
        self._batches_drawn += 1
        generator = torch.Generator().manual_seed(1000 * (self.plan.seed + 1000 * self._batches) + self._batches_drawn)
        batch: tuple[Tensor, ...] = self.model.batch(generator)  # type: ignore[operator]
        return tuple(x.to(self.device, self.dtype if x.is_floating_point() else None) for x in batch)

    def loss(
        self, batch: tuple[Tensor, ...], skip: tuple[str, ...] = (), forward: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Return the mean squared absolute value of the output of the model, or of `forward`.

        A model with the attribute `returns_loss` returns its own loss.
        """
        output: Tensor = (forward or self.wrapper or self.model)(*batch, **({"skip": skip} if skip else {}))
        if getattr(self.model, "returns_loss", False):
            return output
        return (output * output.conj()).real.mean() if output.is_complex() else output.square().mean()

    def bind(self, assignment: Assignment) -> BoundAssignment:
        """Look up what an assignment names, in new lists and options on each call."""
        params = self._params(assignment)
        optimizer_class = find_optimizer_class(assignment.optimizer)
        return optimizer_class, params, bind_options(assignment.options), assignment.hook

    def rebuild(self) -> None:
        """Replace the model by a new one, with other initial values, and without optimizers."""
        with torch.random.fork_rng():
            self.model = build_model(self.plan, self.device)

    def attach_to_new_parameters(self) -> None:
        """Let the method attach to the Parameter objects that sharding has made."""
        if self.attached:
            self.method.reattach(self.model, [self.bind(assignment) for assignment in self.plan.assignments])

    def another_optimizer(self) -> Optimizer:
        """Return an ordinary optimizer for all parameters that is part of neither plan nor method."""
        return torch.optim.SGD(self.model.parameters(), lr=1.0)

    def _params(self, assignment: Assignment) -> Iterable[Any]:
        if assignment.params == ALL:
            return self.model.named_parameters() if assignment.named else self.model.parameters()
        if isinstance(assignment.params, str):
            return [param for param in self.model.parameters() if is_selected(param, assignment.params)]
        return [
            {"params": self._lookup(item.params), **bind_options(item.options)}
            if isinstance(item, Group)
            else self.model.get_parameter(item)
            for item in assignment.params
        ]

    def _lookup(self, names: Iterable[str]) -> list[nn.Parameter]:
        return [self.model.get_parameter(name) for name in names]
