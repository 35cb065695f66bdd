"""What a way to train offers to the functions that write events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.plan.events import Scheduler


class AssignmentSource(NamedTuple):
    """The arguments of `apply` as source, and what the standard loop has to know of them.

    Attributes:
        hook: whether the optimizer steps inside backward.
        held: the names of the parameters, a shared one under its first.
        closure: whether `step` needs one.
    """

    optimizer_class: str
    params: str
    optimizer_kwargs: str
    hook: bool
    held: frozenset[str]
    closure: bool


class LoopSource(Protocol):
    """A way to train: each call returns statements, as a list of lines, or an expression."""

    name: str
    """What tells its files from those of the other; `LoadSharded.of` names it."""

    def attach(self, assignments: Sequence[AssignmentSource], *, more: bool = False) -> list[str]:
        """Give optimizers to parameters; `more`: beside those that there are."""

    def backward(self, loss: str, options: str = "") -> list[str]:
        """Run backward, and step."""

    def step_by_hand(self) -> list[str]:
        """Step what was attached without a hook."""

    def optimizers(self, module: str = "model") -> str:
        """Return the list of optimizers."""

    def reattach(self, assignments: Sequence[AssignmentSource]) -> list[str]:
        """Follow the model to the new Parameter objects of sharding."""

    def wrap(self, call: str, module: str, options: str, *, plainly: bool = False) -> str:
        """Wrap a module: `wrap_ddp`, `fully_shard` or `wrap_fsdp`; `plainly`: by torch's own call in any case."""

    def schedule(self, module: str, scheduler: Scheduler) -> str:
        """Return the list of started schedulers."""

    def state_dict(self) -> str:
        """Return the states of all optimizers."""

    def load_state_dict(self, state: str) -> list[str]:
        """Load them."""

    def detach(self) -> list[str]:
        """Make an ordinary model of it again."""

    def hook_then_optimizer(
        self, wrapped: str, comm_hook: str, state: str, made: AssignmentSource, *, some: bool
    ) -> list[str]:
        """Register a communication hook, with an optimizer to step behind it; `some`: not for all parameters."""


def loading(optimizers: str, state: str) -> list[str]:
    """Return what loads a list of states into a list of optimizers."""
    return [f"for optimizer, state in zip({optimizers}, {state}):", "    optimizer.load_state_dict(state)"]
