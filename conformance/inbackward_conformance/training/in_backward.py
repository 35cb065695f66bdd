"""The method of training that an implementation stands for: backward is all there is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from inbackward_conformance.catalogue.schedulers import build_scheduler, scheduler_class
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.functional import Functional
    from inbackward_conformance.adapters.implementation import BoundAssignment, Implementation
    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.training.trace import State


class InBackward:
    """Training by an implementation under test."""

    name = "InBackward"

    def __init__(self, implementation: Implementation) -> None:
        self._implementation = implementation
        self._behind_hooks: list[tuple[Functional, list[Tensor]]] = []

    def attach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Attach by the implementation."""
        self._implementation.attach(model, assignments)

    def backward(self, model: nn.Module, compute_loss: Callable[[], Tensor], **kwargs: Any) -> None:
        """Backward is all there is; what stepped behind a communication hook leaves its gradients to be freed."""
        self._implementation.backward(compute_loss(), model, **kwargs)
        for _, params in self._behind_hooks:
            for param in params:
                param.grad = None

    def accumulate(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run plain backward: the wrapper has been told that gradients are to stay."""
        compute_loss().backward()

    def reattach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Leave it to the implementation, whose call has sharded the model."""

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap by the implementation."""
        return self._implementation.wrap_ddp(module, **kwargs)

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, optimizer: BoundAssignment, params: list[Any] | None
    ) -> None:
        """Register both by the implementation; the optimizer is a functional one."""
        optimizer_class, held, options, _ = optimizer
        held = list(held)
        functional = self._implementation.functional_optimizer(optimizer_class, held, **options)
        functional.offered("step_param")
        self._implementation.hook_then_optimizer(ddp, comm_hook, state, functional.target, params)
        self._behind_hooks.append((functional, held))

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard by the implementation."""
        return self._implementation.fully_shard(module, **kwargs)

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap by the implementation."""
        return self._implementation.wrap_fsdp(module, **kwargs)

    def step_by_hand(self, model: nn.Module) -> None:
        """Step all that is listed, and free the gradients."""
        optimizers = self._implementation.optimizers(model)
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return what is attached, and what steps behind hooks: it has groups and state as an optimizer has."""
        behind = [functional.target for functional, _ in self._behind_hooks]
        if any("params" not in group for each in behind for group in getattr(each, "param_groups", [{}])):
            raise NotOffered("a functional optimizer does not show its parameters")
        return [*self._implementation.optimizers(model), *behind]

    def state_of(self, optimizer: Optimizer, param: Tensor) -> State:
        """Return what the implementation takes for the state."""
        return self._implementation.state_of(optimizer, param)

    def schedule(self, module: nn.Module, scheduler: Scheduler) -> list[Any]:
        """Start what the implementation makes of it; a composed scheduler is given as the function that builds it."""
        if scheduler.composed:
            return self._implementation.schedule(module, partial(build_scheduler, scheduler))
        return self._implementation.schedule(module, scheduler_class(scheduler), **scheduler.options)

    def state_dict(self, model: nn.Module) -> Any:
        """Return the states of what is attached."""
        return self._implementation.state_dict(model)

    def load_state_dict(self, model: nn.Module, state: Any) -> None:
        """Load them."""
        self._implementation.load_state_dict(model, state)

    def detach(self, model: nn.Module) -> None:
        """Detach by the implementation."""
        self._implementation.detach(model)
