"""What the check of one implementation on a model has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inbackward_conformance.outcome import Outcome


@dataclass(frozen=True)
class TrainingResult:
    """Whether an implementation trains a model as the standard loop does.

    Attributes:
        implementation: the name of the implementation.
        outcome: `conforms` if it is equal; `refuses`, `diverges` or `fails` if not; `not offered` or `not run` if it
            was not compared; `error` if its adapter broke.
        detail: the explanation, on one line: what differs first and after which step, or the error.
        gradient_bytes: the largest number of bytes in gradients at any time; None if they were not counted.
        standard_gradient_bytes: the same of the standard loop.
    """

    implementation: str
    outcome: Outcome
    detail: str
    gradient_bytes: int | None = None
    standard_gradient_bytes: int | None = None

    @property
    def equal(self) -> bool:
        """Whether all that was trained is equal to what the standard loop trains."""
        return self.outcome is Outcome.CONFORMS

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {**asdict(self), "outcome": str(self.outcome)}

    def __str__(self) -> str:
        """Return one line, and one for the gradients if they were counted."""
        lines = [f"{self.implementation}: {self.outcome}: {self.detail}"]
        if self.gradient_bytes is not None and self.standard_gradient_bytes:
            ratio = self.gradient_bytes / self.standard_gradient_bytes
            lines.append(
                f"    gradients: at most {self.gradient_bytes:,} bytes at a time, {ratio:.2f} of the standard loop's "
                f"{self.standard_gradient_bytes:,}"
            )
        return "\n".join(lines)
