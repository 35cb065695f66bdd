"""Training by an implementation, as one of the two methods of training."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from inbackward_conformance.catalogue.schedulers import build_scheduler, scheduler_class
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn
    from torch.distributed import ProcessGroup
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.functional import Functional
    from inbackward_conformance.adapters.implementation import BoundAssignment, Implementation
    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.training.trace import State


class InBackward:
    """Training by an implementation under test: optimizers step inside backward."""

    name = "InBackward"

    def __init__(self, implementation: Implementation) -> None:
        self._implementation = implementation
        self._functional: list[tuple[Functional, list[Tensor]]] = []

    def attach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Attach with the implementation."""
        self._implementation.attach(model, assignments)

    def backward(
        self,
        model: nn.Module,
        compute_loss: Callable[[], Tensor],
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
        **kwargs: Any,
    ) -> None:
        """Run backward `inside` a context, and free the gradients that optimizers after communication hooks leave."""
        loss = compute_loss()
        with inside():
            self._implementation.backward(loss, model, **kwargs)
        for _, params in self._functional:
            for param in params:
                param.grad = None

    def accumulate(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run `loss.backward()`; the caller has disabled synchronisation, and thereby steps."""
        compute_loss().backward()

    def micro_batch(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run `loss.backward()` while the implementation accumulates."""
        with self._implementation.accumulate(model):
            compute_loss().backward()

    def run_pipeline(self, model: nn.Module, schedule: Callable[[], object], between: Callable[[], object]) -> None:
        """Run a pipeline schedule; nothing comes between backward and step."""
        schedule()

    def accumulate_pipeline(
        self, model: nn.Module, schedule: Callable[[], object], between: Callable[[], object]
    ) -> None:
        """Run a pipeline schedule while the implementation accumulates, what comes `between`, and step by hand."""
        with self._implementation.accumulate(model):
            schedule()
        between()
        self.step_by_hand(model)

    def clipped_backward(
        self, model: nn.Module, loss: Tensor, max_norm: float | None, scaler: torch.amp.GradScaler | None
    ) -> Tensor | None:
        """Run the implementation's call."""
        return self._implementation.backward_clipped(loss, model, max_norm=max_norm, scaler=scaler)

    def scaled_backward(self, model: nn.Module, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Run backward of the scaled loss, and what a loop with a scaler goes on with."""
        self._implementation.backward(scaler.scale(loss), model)
        for optimizer in self._implementation.optimizers(model):
            scaler.step(optimizer)
        scaler.update()

    def reattach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Do nothing, since the implementation's own call has sharded the model."""

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap with the implementation."""
        return self._implementation.wrap_ddp(module, **kwargs)

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, optimizer: BoundAssignment, params: list[Any] | None
    ) -> None:
        """Register a communication hook and a functional optimizer with the implementation."""
        optimizer_class, all_params, options, _ = optimizer
        all_params = list(all_params)
        functional = self._implementation.functional_optimizer(optimizer_class, all_params, **options)
        functional.offered("step_param")
        self._implementation.hook_then_optimizer(ddp, comm_hook, state, functional.target, params)
        self._functional.append((functional, all_params))

    def average_by_hand(self, group: ProcessGroup) -> None:
        """Do nothing, since nothing comes between backward and step."""

    def declare_local(self, params: list[Tensor]) -> None:
        """Tell the implementation."""
        self._implementation.declare_local(params)

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard with the implementation."""
        return self._implementation.fully_shard(module, **kwargs)

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap with the implementation."""
        return self._implementation.wrap_fsdp(module, **kwargs)

    def step_by_hand(self, model: nn.Module) -> None:
        """Step the listed optimizers, and free the gradients."""
        optimizers = self._implementation.optimizers(model)
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return the attached optimizers, and functional ones, which have parameter groups and state as well."""
        functional = [optimizer.target for optimizer, _ in self._functional]
        if any("params" not in group for target in functional for group in getattr(target, "param_groups", [{}])):
            raise NotOffered("a functional optimizer does not show its parameters")
        return [*self._implementation.optimizers(model), *functional]

    def state_of(self, optimizer: Optimizer, param: Tensor) -> State:
        """Return the state that an optimizer has for a parameter, according to the implementation."""
        return self._implementation.state_of(optimizer, param)

    def schedule(self, module: nn.Module, scheduler: Scheduler) -> list[Any]:
        """Start a schedule with the implementation; pass a composed scheduler as the function that builds it."""
        if scheduler.composed:
            return self._implementation.schedule(module, partial(build_scheduler, scheduler))
        return self._implementation.schedule(module, scheduler_class(scheduler), **scheduler.options)

    def state_dict(self, model: nn.Module) -> Any:
        """Return the state of the attached optimizers."""
        return self._implementation.state_dict(model)

    def load_state_dict(self, model: nn.Module, state: Any) -> None:
        """Load the state of the attached optimizers."""
        self._implementation.load_state_dict(model, state)

    def detach(self, model: nn.Module) -> None:
        """Detach with the implementation."""
        self._implementation.detach(model)
