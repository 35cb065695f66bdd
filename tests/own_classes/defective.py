"""Twins of the adapters' libraries, each with one defect inside backward; their `step()` is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from own_classes.adalomo_like import AdaLomo
from own_classes.adapters import AdaLomoLike, HeavyballLike, LomoLike, ProdigyLike, ProdigyLikeInOrder
from own_classes.fused_backward import FusedBackward
from own_classes.heavyball_like import Chain, projected_adam
from own_classes.prodigy_like import Prodigy

if TYPE_CHECKING:
    from torch import Tensor

    from own_classes.one_by_one import OneByOne


class StepsInParts(LomoLike):
    """A gradient that comes in two parts, by reentrant checkpoints, is stepped twice."""

    def fused_backward(self, loss: Tensor, optimizers: list[OneByOne], **kwargs: Any) -> None:
        class InParts(FusedBackward):
            def accumulated(self, param: Tensor) -> None:
                self.stepped.discard(id(param))
                super().accumulated(param)

        InParts(optimizers).run(loss, **kwargs)


class ForgetsOnLoad(AdaLomoLike):
    """A checkpoint is loaded without the states."""

    def make(self, optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> OneByOne:
        class Forgetful(AdaLomo):
            def load_state_dict(self, state_dict: dict[str, Any]) -> None:
                super().load_state_dict({**state_dict, "state": {}})

        return Forgetful(params, **optimizer_kwargs)


class CountsTheUnreached(ProdigyLikeInOrder):
    """A parameter that backward does not reach counts in the estimate with what it has added last."""

    def make(self, optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> OneByOne:
        class Counting(Prodigy):
            last: dict[int, tuple[float, float]] = {}  # noqa: RUF012 (replaced, never changed)

            def start(self) -> None:
                self.last = {**self.last, **self._parts}
                super().start()

            def finish(self) -> None:
                self._parts = {**self.last, **self._parts}
                super().finish()

        return Counting(params, **optimizer_kwargs)


class Undeclared(ProdigyLike):
    """It does not say that its sums have another order."""

    rounding = None  # type: ignore[assignment]


class KeepsGradients(HeavyballLike):
    """The last gradient of each parameter stays alive."""

    def make(self, optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> OneByOne:
        class Keeping(Chain):
            def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
                vars(self).setdefault("kept", {})[id(param)] = grad
                super().update(param, grad, group)

        return projected_adam(params, **optimizer_kwargs, chain=Keeping)
