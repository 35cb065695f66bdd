"""The calls of an implementation, with defaults for optional ones."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.adapters.find import CALL_NAMES, for_one_case
from inbackward_conformance.adapters.functional import Functional
from inbackward_conformance.adapters.marked_errors import marking_errors
from inbackward_conformance.adapters.returned import is_optimizer, optimizers_in, schedulers_in, wrong_value
from inbackward_conformance.outcome import NotOffered, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    BoundAssignment = tuple[type[Optimizer], Iterable[Any], dict[str, Any], bool]
    """The arguments of `apply`: optimizer class, parameters, options, whether to register a hook."""

FUNCTIONAL_OPTIMIZERS = ("SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "RMSprop", "Rprop")
"""The classes in `torch.optim` that torch itself has a functional form of."""


class Implementation:
    """An implementation under test, with defaults for the optional calls that it does not have.

    Every error that one of its calls raises is marked, so that it is never taken for an error of the suite.

    Attributes:
        declared: what its adapter declares.
    """

    def __init__(self, target: Any) -> None:
        with marking_errors("its constructor"):
            self._target = for_one_case(target)
        self.declared = Declarations.of(self._target)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return the optimizers that are attached to the parameters of `module`."""
        with marking_errors("optimizers"):
            return optimizers_in(self._required("optimizers")(module), "optimizers")

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Attach all assignments of a model; by default, call `apply` for each."""
        own = self._offered("attach")
        if own:
            with marking_errors("attach"):
                own(module, assignments)
            return
        apply = self._required("apply")
        for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
            with marking_errors("apply"):
                apply(optimizer_class, params, optimizer_kwargs, register_hook=register_hook)

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        """Run backward; by default, `loss.backward(**kwargs)`."""
        own = self._offered("backward")
        with marking_errors("backward"):
            if own:
                own(loss, module, **kwargs)
            else:
                loss.backward(**kwargs)

    def standard_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], optimizer_kwargs: dict[str, Any]
    ) -> Optimizer:
        """Return the optimizer of the standard loop; by default, `optimizer_class(params, **optimizer_kwargs)`."""
        own = self._offered("standard_optimizer")
        make: Callable[..., Optimizer] = own or (lambda cls, params, kwargs: cls(params, **kwargs))
        optimizer = make(optimizer_class, params, optimizer_kwargs)
        if own and not is_optimizer(optimizer):
            expected = "an optimizer, which has param_groups and state"
            raise wrong_value(optimizer, "standard_optimizer", expected, Outcome.ERROR)  # nothing can be compared
        return optimizer

    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        """Return the state that `optimizer` has for `param`; by default, `optimizer.state[param]`.

        For optimizer classes with another layout of states when they step inside backward. It is also called for
        optimizers of the standard loop.
        """
        own = self._offered("state_of")
        with marking_errors("state_of"):
            state: dict[str, Any] = own(optimizer, param) if own else optimizer.state[param]
            return state

    def schedule(
        self, module: nn.Module, scheduler_class: Callable[..., LRScheduler], **kwargs: Any
    ) -> list[LRScheduler]:
        """Return the schedulers to step; by default, one for each of `optimizers(module)`.

        For a composed scheduler, `scheduler_class` is a function that builds it for one optimizer.
        """
        own = self._offered("schedule")
        with marking_errors("schedule"):
            if own:
                return schedulers_in(own(module, scheduler_class, **kwargs), "schedule")
            return [scheduler_class(optimizer, **kwargs) for optimizer in self.optimizers(module)]

    def state_dict(self, module: nn.Module) -> Any:
        """Return the state of all attached optimizers; by default, a list of their state dicts."""
        own = self._offered("state_dict")
        with marking_errors("state_dict"):
            return own(module) if own else [optimizer.state_dict() for optimizer in self.optimizers(module)]

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        """Load what `state_dict` returned; by default, into `optimizers(module)`, in order."""
        own = self._offered("load_state_dict")
        with marking_errors("load_state_dict"):
            if own:
                own(module, state)
            else:
                for optimizer, saved in zip(self.optimizers(module), state, strict=True):
                    optimizer.load_state_dict(saved)

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module wrapped in DistributedDataParallel; by default, by torch itself."""
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 (a plugin loads this where no torch is)

        with marking_errors("wrap_ddp"):
            wrap = self._offered("wrap_ddp") or DistributedDataParallel
            return _module(wrap(module, **kwargs), "wrap_ddp")

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard the module with FSDP2; by default, by torch itself."""
        from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

        with marking_errors("fully_shard"):
            shard: Callable[..., Any] = self._offered("fully_shard") or fully_shard
            sharded: nn.Module = shard(module, **kwargs)
            return sharded

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module in FSDP1; default: torch's own call."""
        from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415

        with marking_errors("wrap_fsdp"):
            wrap = self._offered("wrap_fsdp") or FullyShardedDataParallel
            return _module(wrap(module, **kwargs), "wrap_fsdp")

    def declare_local(self, params: Iterable[Tensor]) -> None:
        """Say that each rank steps these parameters with the gradients that it has; by default, nothing is called.

        They are attached to already. For an implementation that refuses to step, on several ranks, what it cannot see
        anyone average.
        """
        own = self._offered("declare_local")
        with marking_errors("declare_local"):
            if own:
                own(params)

    def hand_over(self, optimizer: Optimizer) -> Any:
        """Hand over an ordinary optimizer, and return what undoes it; not offered by default."""
        own = self._required("hand_over")
        with marking_errors("hand_over"):
            handle = own(optimizer)
            if not callable(getattr(handle, "remove", None)):
                raise wrong_value(handle, "hand_over", "an object that has remove(), which gives the optimizer back")
            return handle

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        """Have gradients of `module` add up in a `with` block, where nothing steps; not offered by default."""
        own = self._required("accumulate")
        with marking_errors("accumulate"), own(module):
            yield

    def backward_clipped(
        self, loss: Tensor, module: nn.Module, max_norm: float | None = None, scaler: Any = None, **options: Any
    ) -> Tensor | None:
        """Run backward with gradients unscaled and clipped by their total norm; not offered by default.

        Returns the total norm, or None if nothing is clipped.
        """
        own = self._required("backward_clipped")
        with marking_errors("backward_clipped"):
            total_norm: Tensor | None = own(loss, module, max_norm=max_norm, scaler=scaler, **options)
            return total_norm

    def detach(self, module: nn.Module) -> None:
        """Give an ordinary model back; not offered by default."""
        own = self._required("detach")
        with marking_errors("detach"):
            own(module)

    @property
    def functional_optimizers(self) -> Sequence[str]:
        """Names of the classes that have a functional form: those in `torch.optim`, or `package.module:Class`."""
        named: Sequence[str] = getattr(self._target, "functional_optimizers", FUNCTIONAL_OPTIMIZERS)
        return named

    def functional_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], **kwargs: Any
    ) -> Functional:
        """Return a functional optimizer; not offered by default."""
        own = self._required("functional_optimizer")
        with marking_errors("functional_optimizer"):
            functional = own(optimizer_class, params, **kwargs)
            if isinstance(functional, type) or not (hasattr(functional, "step") or hasattr(functional, "step_param")):
                raise wrong_value(functional, "functional_optimizer", "an object that has step or step_param")
            return Functional(functional)

    def hook_then_optimizer(
        self,
        ddp: nn.Module,
        comm_hook: Any,
        state: Any,
        functional_optimizer: Any,
        params: Iterable[Any] | None = None,
    ) -> None:
        """Register a communication hook on DDP, and a functional optimizer to step after it; not offered by default."""
        own = self._required("hook_then_optimizer")
        with marking_errors("hook_then_optimizer"):
            own(ddp, comm_hook, state, functional_optimizer, params=params)

    @property
    def has_own_standard_loop(self) -> bool:
        """Whether its adapter changes the standard loop, which is that of no other implementation then."""
        return self.offers("standard_optimizer") or self.offers("state_of")

    def offers(self, call: str) -> bool:
        """Return whether the implementation has this optional call."""
        return self._offered(call) is not None

    def _offered(self, call: str) -> Callable[..., Any] | None:
        attribute = getattr(self._target, call, None)
        return attribute if callable(attribute) else None

    def _required(self, call: str) -> Callable[..., Any]:
        for name in CALL_NAMES.get(call, (call,)):
            if offered := self._offered(name):
                return offered
        raise NotOffered(f"no {call}")


def _module(returned: Any, call: str) -> nn.Module:
    if not callable(returned) or not hasattr(returned, "named_parameters"):
        raise wrong_value(returned, call, "the wrapped module")
    module: nn.Module = returned
    return module
