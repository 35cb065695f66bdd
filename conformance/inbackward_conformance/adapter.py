"""Finds implementations and drives them: the calls that every one offers, and the defaults of the others.

An implementation is a class (called anew, without arguments, for each case), an instance, or a module. It is named by
an entry point of the group `inbackward.implementations`, as `package.module:attribute`, or as `package.module`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.functional import Functional
from inbackward_conformance.marked_errors import marking_errors
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    BoundAssignment = tuple[type[Optimizer], Iterable[Any], dict[str, Any], bool]
    """The arguments of `apply`: optimizer class, parameters, options, whether to register a hook."""

GROUP = "inbackward.implementations"

FUNCTIONAL_OPTIMIZERS = ("SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "RMSprop", "Rprop")
"""The classes of `torch.optim` of which torch itself has a functional form."""

SPELLINGS = {
    "apply": ("apply", "apply_optimizer_in_backward", "_apply_optimizer_in_backward"),
    "optimizers": ("optimizers", "get_in_backward_optimizers", "_get_in_backward_optimizers"),
}
"""Names under which an object may offer the two calls that every implementation has."""


class UnusableImplementation(LookupError):
    """No implementation can be driven under the name that was given; the message is one line with the remedy."""


@cache
def known_implementations() -> dict[str, EntryPoint]:
    """Return the implementations that are registered in this environment, by name.

    Looked up once: that reads the metadata of every installed distribution, longer than a case takes.
    """
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find_implementation(name: str) -> Any:
    """Return the object behind `name`.

    Raises:
        UnusableImplementation: nothing is registered under that name, its import fails, or it does not offer the calls
            that every implementation has.
    """
    known = known_implementations()
    entry = known.get(name) or _from_here(name, sorted(known))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of itself while it is imported
            target = entry.load()
    except (Exception, SystemExit) as error:
        raise UnusableImplementation(
            f"implementation {name!r} cannot be imported from {entry.value!r}: {type(error).__name__}: {error}. "
            f"Check the spelling, and that the module can be imported from here"
        ) from error
    if not any(callable(getattr(target, spelling, None)) for spelling in ("attach", *SPELLINGS["apply"])):
        raise UnusableImplementation(
            f"implementation {name!r} ({entry.value}) has no `apply`. Give it "
            f"apply(optimizer_class, params, optimizer_kwargs, register_hook=True), or attach(module, assignments), "
            f"and optimizers(module)"
        )
    return target


_distributions_of_packages = cache(packages_distributions)
"""Looked up once, as `known_implementations`."""


@cache
def version_of(name: str) -> str:
    """Return which distribution an implementation is of, and its version: `torch-optimi 0.3.3`; empty: of none.

    An adapter that is not part of what it adapts says whose versions are told: `distribution = "torch-optimi"`.
    """
    target = find_implementation(name)
    told = getattr(target, "distribution", None)
    module = target.__name__ if inspect.ismodule(target) else getattr(target, "__module__", type(target).__module__)
    package = module.partition(".")[0]
    # One that is installed editable lists no packages: mostly it is called as its package is.
    distribution = told or next(iter(_distributions_of_packages().get(package, [])), package)
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError as error:
        if not told:
            return ""
        raise UnusableImplementation(
            f"implementation {name!r} says that it is of distribution {told!r}, which is not installed; "
            f"correct its attribute `distribution`, or remove it"
        ) from error


def _from_here(name: str, registered: list[str]) -> EntryPoint:
    """Return an entry point for what can be imported as `python -m` would, from here too.

    Raises:
        UnusableImplementation: there is no such module, or the name is not spelled `module` or `module:attribute`.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module, colon, attribute = name.partition(":")
    spelled = all(part.isidentifier() for part in [*module.split("."), *(attribute.split(".") if colon else [])])
    if not spelled or (not colon and not find_spec(module.partition(".")[0])):
        raise UnusableImplementation(
            f"unknown implementation {name!r}; registered here: {', '.join(registered) or 'none'}. "
            f"Use one of these names, package.module, or package.module:attribute"
        )
    return EntryPoint(name, name, GROUP)


class Implementation:
    """An implementation under test, with the plain thing done where it offers no call of its own.

    Every error that comes out of one of its calls is marked, so that it is never taken for an error of the suite.
    """

    def __init__(self, target: Any) -> None:
        with marking_errors("its constructor"):
            self._target = target() if inspect.isclass(target) else target

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Return what is attached to the parameters of `module`."""
        with marking_errors("optimizers"):
            return list(self._required("optimizers")(module))

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Attach all assignments of a model; default: `apply` for each."""
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
        """Run backward; default: `loss.backward(**kwargs)`."""
        own = self._offered("backward")
        with marking_errors("backward"):
            if own:
                own(loss, module, **kwargs)
            else:
                loss.backward(**kwargs)

    def standard_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], optimizer_kwargs: dict[str, Any]
    ) -> Optimizer:
        """Return the optimizer that the standard loop uses; default: `optimizer_class(params, **optimizer_kwargs)`."""
        own = self._offered("standard_optimizer")
        make: Callable[..., Optimizer] = own or (lambda cls, params, kwargs: cls(params, **kwargs))
        return make(optimizer_class, params, optimizer_kwargs)

    def state_of(self, optimizer: Optimizer, param: Tensor) -> dict[str, Any]:
        """Return what `optimizer` knows of `param` from earlier steps; default: `optimizer.state[param]`.

        For optimizer classes that keep it in another layout where they step inside backward. The standard loop's
        optimizers are asked by it as well.
        """
        own = self._offered("state_of")
        with marking_errors("state_of"):
            state: dict[str, Any] = own(optimizer, param) if own else optimizer.state[param]
            return state

    def schedule(
        self, module: nn.Module, scheduler_class: Callable[..., LRScheduler], **kwargs: Any
    ) -> list[LRScheduler]:
        """Return what is to be stepped for a schedule; default: one scheduler for each of `optimizers(module)`.

        Where a scheduler is made of others, `scheduler_class` is the function that builds it over one optimizer.
        """
        own = self._offered("schedule")
        with marking_errors("schedule"):
            if own:
                return list(own(module, scheduler_class, **kwargs))
            return [scheduler_class(optimizer, **kwargs) for optimizer in self.optimizers(module)]

    def state_dict(self, module: nn.Module) -> Any:
        """Return the states of all that is attached; default: those of `optimizers(module)`, in that order."""
        own = self._offered("state_dict")
        with marking_errors("state_dict"):
            return own(module) if own else [optimizer.state_dict() for optimizer in self.optimizers(module)]

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        """Load what `state_dict` returned; default: into `optimizers(module)`, in that order."""
        own = self._offered("load_state_dict")
        with marking_errors("load_state_dict"):
            if own:
                own(module, state)
            else:
                for optimizer, saved in zip(self.optimizers(module), state, strict=True):
                    optimizer.load_state_dict(saved)

    def wrap_ddp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module in DistributedDataParallel; default: torch's own call."""
        from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415 (a plugin loads this where no torch is)

        with marking_errors("wrap_ddp"):
            wrap: Callable[..., nn.Module] = self._offered("wrap_ddp") or DistributedDataParallel
            return wrap(module, **kwargs)

    def fully_shard(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Shard the module by FSDP2; default: torch's own call."""
        from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

        with marking_errors("fully_shard"):
            shard: Callable[..., Any] = self._offered("fully_shard") or fully_shard
            sharded: nn.Module = shard(module, **kwargs)
            return sharded

    def wrap_fsdp(self, module: nn.Module, **kwargs: Any) -> nn.Module:
        """Return the module in FSDP1; default: torch's own call."""
        from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415

        with marking_errors("wrap_fsdp"):
            wrap: Callable[..., nn.Module] = self._offered("wrap_fsdp") or FullyShardedDataParallel
            return wrap(module, **kwargs)

    def detach(self, module: nn.Module) -> None:
        """Give an ordinary model back; not offered by default."""
        own = self._offered("detach")
        if own is None:
            raise NotOffered("no detach")
        with marking_errors("detach"):
            own(module)

    @property
    def functional_optimizers(self) -> Sequence[str]:
        """Names of the classes of which it has a functional form: of `torch.optim`, or `package.module:Class`."""
        named: Sequence[str] = getattr(self._target, "functional_optimizers", FUNCTIONAL_OPTIMIZERS)
        return named

    def functional_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Any], **kwargs: Any
    ) -> Functional:
        """Return the functional form of an optimizer; not offered by default."""
        own = self._offered("functional_optimizer")
        if own is None:
            raise NotOffered("no functional_optimizer")
        with marking_errors("functional_optimizer"):
            return Functional(own(optimizer_class, params, **kwargs))

    def hook_then_optimizer(
        self,
        ddp: nn.Module,
        comm_hook: Any,
        state: Any,
        functional_optimizer: Any,
        params: Iterable[Any] | None = None,
    ) -> None:
        """Register a communication hook on a DDP, and a functional optimizer behind it; not offered by default."""
        own = self._offered("hook_then_optimizer")
        if own is None:
            raise NotOffered("no hook_then_optimizer")
        with marking_errors("hook_then_optimizer"):
            own(ddp, comm_hook, state, functional_optimizer, params=params)

    def offers(self, call: str) -> bool:
        """Whether the implementation has an optional call of its own."""
        return self._offered(call) is not None

    def _offered(self, call: str) -> Callable[..., Any] | None:
        found = getattr(self._target, call, None)
        return found if callable(found) else None

    def _required(self, call: str) -> Callable[..., Any]:
        for spelling in SPELLINGS[call]:
            if found := self._offered(spelling):
                return found
        raise NotOffered(f"no {call}")
