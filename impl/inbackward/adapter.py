"""How the conformance suite drives this package, by two adapters. It needs nothing of the suite."""

from __future__ import annotations

import weakref
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import inbackward
from inbackward._build import check_class
from inbackward._hand_over import BUCKET_BYTES
from inbackward._handed_over import expect_handed_over
from inbackward._params import listed_params

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch
    from torch import nn
    from torch.optim import Optimizer

    Assignment = tuple[type[Optimizer], Iterable[Any], dict[str, Any], bool]


class _Ours:
    """What both adapters have in common."""

    spelling: ClassVar[dict[str, str]] = {
        "import": "import inbackward",
        "optimizers": "inbackward.get_in_backward_optimizers({module})",
        "detach": "inbackward.detach({module})",
        "declare_local": "inbackward.declare_local({params})",
        "fully_shard": "inbackward.fully_shard({module}, {options})",
        "functional_optimizer": "inbackward.functional_optimizer({optimizer_class}, {params}, {options})",
        "hook_then_optimizer": (
            "inbackward.hook_then_optimizer({ddp}, {comm_hook}, {state}, {functional_optimizer}, {params})"
        ),
        "wrap_ddp": "inbackward.wrap_ddp({module}, {options})",
        "wrap_fsdp": "inbackward.wrap_fsdp({module}, {options})",
    }
    """The lines of a script that reproduces a failure."""

    declare_local = staticmethod(inbackward.declare_local)
    fully_shard = staticmethod(inbackward.fully_shard)
    functional_optimizer = staticmethod(inbackward.functional_optimizer)
    hook_then_optimizer = staticmethod(inbackward.hook_then_optimizer)
    wrap_ddp = staticmethod(inbackward.wrap_ddp)
    wrap_fsdp = staticmethod(inbackward.wrap_fsdp)


class OneEach(_Ours):
    """`apply_optimizer_in_backward`: an optimizer for each parameter."""

    spelling: ClassVar[dict[str, str]] = {
        **_Ours.spelling,
        "apply": (
            "inbackward.apply_optimizer_in_backward("
            "{optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})"
        ),
    }

    apply = staticmethod(inbackward.apply_optimizer_in_backward)
    optimizers = staticmethod(inbackward.get_in_backward_optimizers)
    detach = staticmethod(inbackward.detach)


class HandOver(_Ours):
    """`step_in_backward`: an ordinary optimizer for each assignment, handed over at the default size of buckets."""

    bucket_bytes = BUCKET_BYTES

    spelling: ClassVar[dict[str, str]] = {
        **_Ours.spelling,
        "import": """\
            from contextlib import ExitStack, contextmanager
            import inbackward

            @contextmanager
            def accumulate(model):
                with ExitStack() as stack:
                    for optimizer in inbackward.get_in_backward_optimizers(model):
                        stack.enter_context(inbackward.handle_of(optimizer).accumulate())
                    yield
            """,
        "apply": "inbackward.step_in_backward({optimizer_class}({params}, **{optimizer_kwargs}))",
        "hand_over": "inbackward.step_in_backward({optimizer})",
        "accumulate": "accumulate({module})",
        "backward_clipped": ("inbackward.backward({loss}, inbackward.get_in_backward_optimizers({module}), {options})"),
    }

    def __init__(self) -> None:
        self._ordinary: weakref.WeakKeyDictionary[nn.Module, list[Optimizer]] = weakref.WeakKeyDictionary()

    def attach(self, module: nn.Module, assignments: Sequence[Assignment]) -> None:
        """Makes all optimizers of a model, and hands them over.

        One that is not to step inside backward is handed over where others step all of its parameters.
        """
        made = [
            (_make(optimizer_class, params, options), hooked)
            for optimizer_class, params, options, hooked in assignments
        ]
        stepped = {id(param) for optimizer, hooked in made if hooked for param in listed_params(optimizer)}
        ordinary = []
        with ExitStack() as undo:
            for optimizer, _ in made:
                if stepped.issuperset(map(id, listed_params(optimizer))):
                    undo.enter_context(self.hand_over(optimizer))
                else:
                    ordinary.append(optimizer)
            undo.pop_all()
        self._ordinary[module] = [*self._ordinary.get(module, []), *ordinary]

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        """Lists the optimizers that have parameters of the module."""
        params = set(map(id, module.parameters()))
        ordinary = [
            optimizer
            for optimizers in self._ordinary.values()
            for optimizer in optimizers
            if not params.isdisjoint(map(id, listed_params(optimizer)))
        ]
        return [*inbackward.get_in_backward_optimizers(module), *ordinary]

    def hand_over(self, optimizer: Optimizer) -> inbackward.Handle:
        """Hands over an optimizer."""
        return inbackward.step_in_backward(optimizer, self.bucket_bytes)

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        """Has gradients of the module add up."""
        with ExitStack() as stack:
            for optimizer in inbackward.get_in_backward_optimizers(module):
                stack.enter_context(inbackward.handle_of(optimizer).accumulate())
            yield

    def backward_clipped(self, loss: torch.Tensor, module: nn.Module, **kwargs: Any) -> torch.Tensor | None:
        """Clips by the norm of all gradients of the module's optimizers, in the order of hand-over."""
        handed = map(expect_handed_over, inbackward.get_in_backward_optimizers(module))
        optimizers = [each.optimizer for each in sorted(handed, key=attrgetter("number"))]
        return inbackward.backward(loss, optimizers, **kwargs)

    def detach(self, module: nn.Module) -> None:
        """Makes the module an ordinary one."""
        inbackward.detach(module)
        self._ordinary.pop(module, None)


class HandOverEach(HandOver):
    """Each parameter is stepped at once."""

    bucket_bytes = 0


class HandOverFew(HandOver):
    """A bucket of a few small parameters."""

    bucket_bytes = 256


def _make(optimizer_class: type[Optimizer], params: Iterable[Any], options: dict[str, Any]) -> Optimizer:
    check_class(optimizer_class)
    return optimizer_class(params, **options)
