"""A functional optimizer of the implementation under test, as requirements call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.marked_errors import marking_errors
from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Functional:
    """Wraps a functional optimizer, and marks each error that it raises as the implementation's.

    Attributes:
        target: the functional optimizer itself.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Step all parameters."""
        with marking_errors("step"):
            self.offered("step")(gradients)

    def step_param(self, param: Tensor, grad: Tensor | None) -> None:
        """Step one parameter."""
        with marking_errors("step_param"):
            self.offered("step_param")(param, grad)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all parameter groups, as in `torch.optim`."""
        with marking_errors("param_groups"):
            for group in self.offered("param_groups"):
                group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict."""
        with marking_errors("state_dict"):
            state: dict[str, Any] = self.offered("state_dict")()
            return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state dict."""
        with marking_errors("load_state_dict"):
            self.offered("load_state_dict")(state)

    def offered(self, name: str) -> Any:
        """Return an attribute of the functional optimizer.

        Raises:
            NotOffered: it has no such attribute.
        """
        try:
            return getattr(self.target, name)
        except AttributeError:
            raise NotOffered(f"{type(self.target).__name__} has no {name}") from None
