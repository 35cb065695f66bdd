"""The standard training loop: `loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from inbackward_conformance.catalogue.build import is_of_a_library
from inbackward_conformance.catalogue.optimizers import needs_closure
from inbackward_conformance.catalogue.schedulers import build_scheduler
from inbackward_conformance.outcome import NotOffered, NotRun
from inbackward_conformance.tensors import local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment, Implementation
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.training.trace import Raised


class StandardLoop:
    """One ordinary optimizer for each assignment, stepped in the order of assignment.

    The implementation under test provides the optimizer classes and the layout of their states.
    """

    name = "StandardLoop"
    """The name of its subfolder of checkpoints, as in `LoadSharded.of`."""

    def __init__(self, implementation: Implementation) -> None:
        self._make_optimizer = implementation.standard_optimizer
        self.state_of = implementation.state_of
        self._after_backward: list[Optimizer] = []
        self._by_hand: list[Optimizer] = []
        self._optimizers: list[Optimizer] = []
        self._hooked: set[int] = set()
        self._averaged_over: torch.distributed.ProcessGroup | None = None

    def attach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make the optimizers."""
        self._after_backward.clear()
        self._by_hand.clear()
        for optimizer_class, params, kwargs, hook in assignments:
            optimizer = self._make_optimizer(optimizer_class, params, kwargs)
            self._optimizers.append(optimizer)
            if hook:
                self._hooked |= parameters_of(optimizer)
        for optimizer in self._optimizers:
            # As in torch, the hook on a parameter steps all of its optimizers, even those attached without a hook.
            params = parameters_of(optimizer)
            if params <= self._hooked:
                self._after_backward.append(optimizer)
            elif params.isdisjoint(self._hooked):
                self._by_hand.append(optimizer)
            else:
                raise ValueError(
                    "an assignment without a hook must have all of its parameters hooked by others, or none"
                )

    def backward(
        self,
        model: nn.Module,
        compute_loss: Callable[[], Tensor],
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
        **kwargs: Any,
    ) -> None:
        """Run `loss.backward()`, `optimizer.step()`, `optimizer.zero_grad()`; the first of them `inside` a context."""
        loss = compute_loss()
        with inside():
            loss.backward(**kwargs)
        if self._averaged_over:
            _average(model, self._averaged_over)
        for optimizer in self._after_backward:
            if needs_closure(type(optimizer)):
                optimizer.step(functools.partial(closure, optimizer, compute_loss))  # type: ignore[arg-type]
            else:
                optimizer.step()
        for optimizer in self._after_backward:
            optimizer.zero_grad(set_to_none=True)

    def accumulate(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run `loss.backward()`."""
        compute_loss().backward()

    micro_batch = accumulate  # nothing steps before `step()` is called

    def run_pipeline(self, model: nn.Module, schedule: Callable[[], object], between: Callable[[], object]) -> None:
        """Run a pipeline schedule, what comes `between`, `optimizer.step()`, `optimizer.zero_grad()`."""
        schedule()
        between()
        _step_and_free(self._after_backward)

    accumulate_pipeline = run_pipeline  # nothing steps before `step()` is called

    def clipped_backward(
        self, model: nn.Module, loss: Tensor, max_norm: float | None, scaler: torch.amp.GradScaler | None
    ) -> Tensor | None:
        """Run `backward`, `unscale_`, `clip_grad_norm_`, `step`, `update` and `zero_grad`; return the total norm."""
        optimizers = self._after_backward
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        params = {
            param: None for optimizer in optimizers for group in optimizer.param_groups for param in group["params"]
        }
        total_norm = None if max_norm is None else torch.nn.utils.clip_grad_norm_(params, max_norm)
        for optimizer in optimizers:
            if scaler:
                scaler.step(optimizer)
            else:
                optimizer.step()
        if scaler:
            scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        return total_norm

    def scaled_backward(self, model: nn.Module, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Run `clipped_backward`, without clipping."""
        self.clipped_backward(model, loss, None, scaler)

    def reattach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make new optimizers, as a user does after sharding."""
        self.detach(model)
        self.attach(model, assignments)

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap in `DistributedDataParallel`."""
        return DistributedDataParallel(module, **kwargs)

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, optimizer: BoundAssignment, params: list[Any] | None
    ) -> None:
        """Register the communication hook, and attach the optimizer as any other."""
        ddp.register_comm_hook(state, comm_hook)
        self.attach(ddp, [optimizer])

    def average_by_hand(self, group: torch.distributed.ProcessGroup) -> None:
        """Average the gradients of all parameters over a group, between backward and step."""
        self._averaged_over = group

    def declare_local(self, params: list[Tensor]) -> None:
        """Do nothing: an ordinary optimizer steps with the gradients that it finds."""

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard with `fully_shard`."""
        from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 (loads much that few plans need)

        fully_shard(module, **kwargs)
        return module

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Wrap in `FullyShardedDataParallel`."""
        from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415

        return FullyShardedDataParallel(module, **kwargs)

    def step_by_hand(self, model: nn.Module) -> None:
        """Run `optimizer.step()` and `optimizer.zero_grad()` for the optimizers without hooks."""
        _step_and_free(self._by_hand)

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return the optimizers, one for each assignment, that have parameters of the model."""
        params = set(map(id, model.parameters()))
        return [optimizer for optimizer in self._optimizers if params & parameters_of(optimizer)]

    def schedule(self, module: nn.Module, scheduler: Scheduler) -> list[Any]:
        """Start one scheduler for each optimizer."""
        return [build_scheduler(scheduler, optimizer) for optimizer in self.optimizers(module)]

    def state_dict(self, model: nn.Module) -> Any:
        """Return a list of state dicts."""
        return [optimizer.state_dict() for optimizer in self.optimizers(model)]

    def load_state_dict(self, model: nn.Module, state: Any) -> None:
        """Load a list of state dicts."""
        for optimizer, saved in zip(self.optimizers(model), state, strict=True):
            optimizer.load_state_dict(saved)

    def detach(self, model: nn.Module) -> None:
        """Forget the optimizers."""
        self._optimizers.clear()
        self._hooked.clear()
        self._after_backward.clear()
        self._by_hand.clear()


def unusable_plan_error(implementation: Implementation, plan: Plan, raised: Raised) -> Exception:
    """Return the error to raise after the standard loop has raised in a plan that does not expect it.

    The implementation's own optimizer classes need not support every plan that torch's do. Where an adapter declares
    none, and makes the standard optimizer of another class itself, it should have raised `NotOffered` instead of making
    one that cannot be constructed. A model of another library may not work with the versions that are installed.
    """
    if is_of_a_library(plan):
        return NotRun(f"the versions of libraries here do not train {plan.model}: {raised.text}")
    declared = bool(implementation.declared.own_optimizers)
    if declared or (implementation.offers("standard_optimizer") and not raised.attaching):
        return NotOffered(f"the standard loop with its own optimizer class raises {raised.text}")
    return RuntimeError(f"the plan proves nothing, the standard loop itself raises: {raised.text}, in {plan!r}")


def _step_and_free(optimizers: list[Optimizer]) -> None:
    for optimizer in optimizers:
        optimizer.step()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)


def _average(model: nn.Module, group: torch.distributed.ProcessGroup) -> None:
    for param in model.parameters():
        if param.grad is not None:
            grad = local(param.grad)
            torch.distributed.all_reduce(grad, group=group)
            grad /= group.size()


def parameters_of(optimizer: Optimizer) -> set[int]:
    """Return the ids of the parameters of `optimizer`."""
    return {id(param) for group in optimizer.param_groups for param in group["params"]}


def closure(optimizer: Optimizer, compute_loss: Callable[[], Tensor]) -> Tensor:
    """Compute the loss again, and its gradients."""
    optimizer.zero_grad()
    loss = compute_loss()
    loss.backward()
    return loss
