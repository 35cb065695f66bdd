"""Checkpoints: training that stops and goes on elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.events.backward import Attach
from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class Save(Printable):
    """Save the model and the states of its optimizers to a file in memory."""

    def happen(self, run: Run) -> None:
        """Save as one does between two steps."""
        import torch

        run.saved = io.BytesIO()
        torch.save({"model": run.model.state_dict(), "optimizers": run.method.state_dict(run.model)}, run.saved)


@dataclass(frozen=True, repr=False)
class Load(Printable):
    """Load what was saved last.

    Attributes:
        rebuild: into a model that is built and attached anew, as in another process; else into the one in training.
    """

    rebuild: bool = True

    def happen(self, run: Run) -> None:
        """Load the model, then its optimizers."""
        import torch

        if self.rebuild:
            run.rebuild()
            Attach().happen(run)
        run.saved.seek(0)
        loaded = torch.load(run.saved, weights_only=False)
        run.model.load_state_dict(loaded["model"])
        run.method.load_state_dict(run.model, loaded["optimizers"])
