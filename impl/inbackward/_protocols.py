"""What the modules of attachments, buckets and steps need to know of the assignments that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from torch.optim import Optimizer

    from inbackward._engine import Pass


class Attached(Protocol):
    """A parameter and its optimizers: `inbackward._attachment.Attachment`."""

    param: torch.Tensor

    @property
    def optimizers(self) -> Mapping[Any, Optimizer]:
        """The optimizers, by the assignment that attached each."""


class Assigned(Protocol):
    """The parameters of one call that attaches: `inbackward._assignment.Assignment`, whose docstrings say the rest."""

    number: int
    hooked: bool
    steps_each_alone: bool
    bucket_bytes: int
    gate: Any
    bucket: Any
    accumulating: int
    intercept: Callable[[Any], None] | None
    transform: Callable[[list[torch.Tensor]], object] | None

    @property
    def changes(self) -> tuple[Callable[[list[torch.Tensor]], object], ...]:
        """What changes gradients before they are stepped."""

    def forget(self, attachment: Any) -> None:
        """Forgets a parameter that is detached."""

    def replace(self, old: Any, new: Any) -> None:
        """Has another attachment in the place of one."""

    def note_others(self) -> None:
        """Called when the optimizers of a parameter have changed."""

    def follow_edits(self) -> None:
        """Follows what was changed by hand."""

    def join(self, run: Pass) -> Any:
        """Takes part in a pass, and gives its bucket."""

    def bucket_in(self, run: Pass) -> Any:
        """What a pass has reached; None if it has not come by."""

    def note_gradients(self, run: Pass) -> None:
        """Takes note of the stepped parameters that hold a gradient before others end the pass."""

    def leave(self, bucket: Any) -> None:
        """Called when a pass is over."""

    def is_claimed_beside(self, bucket: Any, param: torch.Tensor) -> bool:
        """Whether another pass that runs has reached the parameter."""

    def may_be_read(self, param: torch.Tensor) -> bool:
        """Whether the running graph may still read the parameter."""

    def refuse_second_part(self, param: torch.Tensor) -> NoReturn:
        """Refuses a part of a gradient that comes after the parameter was stepped."""

    def step_after_hooks(self, param: torch.Tensor, bucket: Any) -> None:
        """Steps a parameter as soon as all hooks of the user have seen its gradient."""

    def step_now(self, params: Iterable[torch.Tensor]) -> None:
        """Steps parameters of this assignment."""

    def change(self, attachments: Sequence[Any]) -> None:
        """Changes gradients before they are stepped."""

    def step(self, attachments: Sequence[Any]) -> None:
        """Steps those of the given parameters that this assignment has."""

    @staticmethod
    def finish(run: Pass) -> None:
        """Steps every parameter that holds a gradient, at the end of a pass."""
