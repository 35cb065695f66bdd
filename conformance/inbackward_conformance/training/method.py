"""What a way to train offers: the standard loop and an implementation have the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from inbackward_conformance.adapters.implementation import BoundAssignment
    from inbackward_conformance.plan.events import Scheduler
    from inbackward_conformance.training.trace import State


class Method(Protocol):
    """How a model is trained: by the standard loop, or by an implementation."""

    name: str
    """What tells its files from those of the other; `LoadSharded.of` names it."""

    def attach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Give optimizers to parameters."""

    def backward(self, model: nn.Module, compute_loss: Callable[[], Tensor], **kwargs: Any) -> None:
        """Run backward; when it returns, hooked optimizers have stepped and their gradients are freed."""

    def step_by_hand(self, model: nn.Module) -> None:
        """Step and zero the optimizers that were attached without a hook."""

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Return the optimizers in use; raises `NotOffered` where they are not to be had."""

    def state_of(self, optimizer: Optimizer, param: Tensor) -> State:
        """Return the state that one of them holds for a parameter."""

    def accumulate(self, model: nn.Module, compute_loss: Callable[[], Tensor]) -> None:
        """Run backward where gradients are to be left for the next one."""

    def reattach(self, model: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Follow the model, attached to before, to new Parameter objects that sharding has made."""

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module, wrapped in DistributedDataParallel."""

    def hook_then_optimizer(
        self, ddp: Any, comm_hook: Any, state: Any, optimizer: BoundAssignment, params: list[Any] | None
    ) -> None:
        """Register a communication hook, and an optimizer to step behind it; `params`: None, or those it steps."""

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard the module by FSDP2."""

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module, wrapped in FSDP1."""

    def schedule(self, module: nn.Module, scheduler: Scheduler) -> list[Any]:
        """Return started schedulers, to be stepped by `step()`, over the optimizers of `module`."""

    def state_dict(self, model: nn.Module) -> Any:
        """Return the states of all optimizers, for a checkpoint."""

    def load_state_dict(self, model: nn.Module, state: Any) -> None:
        """Load what `state_dict` returned."""

    def detach(self, model: nn.Module) -> None:
        """Make an ordinary model of it again; raises `NotOffered` where that is not to be had."""
