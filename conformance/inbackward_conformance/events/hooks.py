"""What users hang on parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from torch import Tensor

    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run

LARGEST_NORM = 0.01


@dataclass(frozen=True, repr=False)
class ClipGradients(Printable):
    """Hang a hook on each parameter that clips the norm of its gradient.

    Attributes:
        by: `register_hook`, which gives another gradient back, or `register_post_accumulate_grad_hook`, which changes
            `param.grad`.
    """

    by: str

    def happen(self, run: Run) -> None:
        """Register the hooks, as a user would."""
        hook = _clipped if self.by == "register_hook" else _clip
        for param in run.model.parameters():
            getattr(param, self.by)(hook)

    def spell(self, script: Script) -> None:
        """Register the hooks, as a user would."""
        hook = script.name_of(_clipped if self.by == "register_hook" else _clip)
        script.add("for param in model.parameters():", f"    param.{self.by}({hook})")


@dataclass(frozen=True, repr=False)
class DropGradients(Printable):
    """Hang a post-accumulate-grad hook on some parameters that sets `param.grad` to None: they are not to step."""

    params: tuple[str, ...]

    def happen(self, run: Run) -> None:
        """Register the hooks, as a user would."""
        for name in self.params:
            run.model.get_parameter(name).register_post_accumulate_grad_hook(_drop)

    def spell(self, script: Script) -> None:
        """Register the hooks, as a user would."""
        script.add(f"for param in {script.parameters(self.params)}:")
        script.add(f"    param.register_post_accumulate_grad_hook({script.name_of(_drop)})")


def _clipped(grad: Tensor) -> Tensor:
    clipped: Tensor = grad * (LARGEST_NORM / grad.norm()).clamp(max=1.0)
    return clipped


def _clip(param: Tensor) -> None:
    assert param.grad is not None, "a user's post-accumulate-grad hook finds no gradient"
    param.grad = _clipped(param.grad)


def _drop(param: Tensor) -> None:
    param.grad = None
