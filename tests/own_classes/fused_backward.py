"""A backward that steps: for its time, hooks on parameters step each as soon as its gradient is there, and free it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from own_classes.one_by_one import may_be_read, parameters_of, step_and_free, twice_in_one_backward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from own_classes.one_by_one import OneByOne


def fused_backward(loss: Tensor, optimizers: Sequence[OneByOne], **kwargs: Any) -> None:
    """Run `loss.backward(**kwargs)`, and step all `optimizers` within."""
    FusedBackward(optimizers).run(loss, **kwargs)


class FusedBackward:
    """One such backward."""

    def __init__(self, optimizers: Sequence[OneByOne]) -> None:
        self._optimizers = optimizers
        self._params = parameters_of(optimizers)
        self.stepped: set[int] = set()

    def run(self, loss: Tensor, **kwargs: Any) -> None:
        """Run backward; afterwards step what holds a gradient yet."""
        for optimizer in self._optimizers:
            optimizer.start()
        # Registered now, they come after every hook of the user.
        trained = [param for param in self._params if param.requires_grad]
        handles = [param.register_post_accumulate_grad_hook(self.accumulated) for param in trained]
        try:
            loss.backward(**kwargs)
        except RuntimeError as error:
            if self.stepped and "modified by an inplace operation" in str(error):
                raise RuntimeError(
                    "Backward needs a parameter that was already stepped: use an ordinary backward() and step() here."
                ) from error
            raise
        finally:
            for handle in handles:
                handle.remove()
        for param in self._params:
            if param.grad is not None:
                step_and_free(param, self._optimizers)
        for optimizer in self._optimizers:
            optimizer.finish()

    def accumulated(self, param: Tensor) -> None:
        """Step a parameter whose gradient is there, unless the graph may yet read its value."""
        if id(param) in self.stepped:
            raise twice_in_one_backward(param)
        if param.grad is not None and not may_be_read(param):
            self.stepped.add(id(param))
            step_and_free(param, self._optimizers)
