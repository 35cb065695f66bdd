"""The adapters of the libraries here, as their authors would write them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from inbackward_conformance import NotOffered
from inbackward_conformance.adapters.declarations import OwnOptimizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from inbackward_conformance.adapters.implementation import BoundAssignment
    from own_classes.one_by_one import OneByOne


class OfUser:
    """Keeps optimizers as a user does: for as long as there is the model."""

    own_optimizers: ClassVar[list[OwnOptimizer]] = []

    def __init__(self) -> None:
        self._of_model: weakref.WeakKeyDictionary[nn.Module, list[OneByOne]] = weakref.WeakKeyDictionary()
        self._stepped_by_hand: weakref.WeakSet[OneByOne] = weakref.WeakSet()

    def attach(self, module: nn.Module, assignments: Sequence[BoundAssignment]) -> None:
        """Make an optimizer for each assignment."""
        made = [self._make(*assignment) for assignment in assignments]
        by_hand, in_backward = _params(self._by_hand(module)), _params(self._in_backward(module))
        for optimizer in made:
            (by_hand if optimizer in self._stepped_by_hand else in_backward).update(_params([optimizer]))
        if by_hand & in_backward:
            raise NotOffered("an optimizer that steps by hand, and one that steps inside backward, on a parameter")
        for optimizer in made:
            if optimizer not in self._stepped_by_hand:
                self.release(optimizer)
        self._of_model.setdefault(module, []).extend(made)

    def optimizers(self, module: nn.Module) -> list[OneByOne]:
        """Return those that hold a parameter of `module`."""
        params = set(map(id, module.parameters()))
        held = (optimizer for optimizers in list(self._of_model.values()) for optimizer in optimizers)
        return [optimizer for optimizer in held if params & _params([optimizer])]

    def detach(self, module: nn.Module) -> None:
        """Drop its optimizers."""
        gone = self.optimizers(module)
        for model, optimizers in list(self._of_model.items()):
            self._of_model[model] = [optimizer for optimizer in optimizers if optimizer not in gone]

    def make(self, optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> OneByOne:
        """Make the optimizer that steps inside backward; the standard loop makes its own."""
        optimizer: OneByOne = optimizer_class(params, **optimizer_kwargs)
        return optimizer

    def release(self, optimizer: OneByOne) -> None:
        """Have it step inside backward."""

    def _make(self, optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any], hook: bool) -> OneByOne:
        name = f"{getattr(optimizer_class, '__module__', '')}:{getattr(optimizer_class, '__qualname__', '')}"
        if name not in {own.name for own in self.own_optimizers}:
            raise NotOffered(f"it steps optimizers of its own, not {optimizer_class!r}")
        optimizer = self.make(optimizer_class, params, optimizer_kwargs)
        if not hook:
            self._stepped_by_hand.add(optimizer)
        return optimizer

    def _by_hand(self, module: nn.Module) -> list[OneByOne]:
        return [optimizer for optimizer in self.optimizers(module) if optimizer in self._stepped_by_hand]

    def _in_backward(self, module: nn.Module) -> list[OneByOne]:
        return [optimizer for optimizer in self.optimizers(module) if optimizer not in self._stepped_by_hand]


class WithBackwardOfItsOwn(OfUser):
    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        """Call `fused_backward`; for a model without such optimizers, plain backward."""
        optimizers = self._in_backward(module)
        if optimizers:
            self.fused_backward(loss, optimizers, **kwargs)
        else:
            loss.backward(**kwargs)

    def fused_backward(self, loss: Tensor, optimizers: list[OneByOne], **kwargs: Any) -> None:
        from own_classes.fused_backward import fused_backward  # noqa: PLC0415 (an adapter is imported without torch)

        fused_backward(loss, optimizers, **kwargs)


class WithHooks(OfUser):
    def release(self, optimizer: OneByOne) -> None:
        """Register hooks."""
        from own_classes.release import release_gradients  # noqa: PLC0415

        release_gradients(optimizer)


class LomoLike(WithBackwardOfItsOwn):
    own_optimizers: ClassVar = [OwnOptimizer("own_classes.lomo_like:Lomo", {"lr": 0.1}, lacks={"groups"})]


class ProdigyLike(WithBackwardOfItsOwn):
    own_optimizers: ClassVar = [
        OwnOptimizer(
            "own_classes.prodigy_like:Prodigy",
            {"lr": 1.0},
            variants=[{"weight_decay": 0.1}, {"betas": (0.5, 0.9)}],
            lacks={"complex", "sparse"},
        )
    ]
    # Sums in double precision differ by 1e-16. The suite sees it in float64 plans only, enlarged to 5e-15 by Adam.
    rounding = (1e-12, "the estimate of the step size is a sum over parameters in the order of their gradients")


class ProdigyLikeInOrder(WithBackwardOfItsOwn):
    """The same without rounding: the sum is in the order of parameters."""

    own_optimizers: ClassVar = [
        OwnOptimizer(
            "own_classes.prodigy_like:Prodigy",
            {"lr": 1.0, "in_order": True},
            variants=[{"weight_decay": 0.1}, {"betas": (0.5, 0.9)}],
            lacks={"complex", "sparse"},
        )
    ]


class AdaLomoLike(WithHooks):
    own_optimizers: ClassVar = [
        OwnOptimizer(
            "own_classes.adalomo_like:AdaLomo",
            {"lr": 0.1},
            variants=[{"weight_decay": 0.1}],
            lacks={"complex", "sparse"},
        )
    ]


class HeavyballLike(WithHooks):
    own_optimizers: ClassVar = [
        OwnOptimizer(
            "own_classes.heavyball_like:projected_adam",
            {"lr": 0.01},
            variants=[{"weight_decay": 0.1}],
            lacks={"complex", "sparse"},
        )
    ]


def _params(optimizers: Sequence[OneByOne]) -> set[int]:
    return {id(param) for optimizer in optimizers for group in optimizer.param_groups for param in group["params"]}
