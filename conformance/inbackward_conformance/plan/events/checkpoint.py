"""Checkpoints: training that stops and goes on elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Save(Event):
    """Save the model and the states of its optimizers to a file in memory."""


@dataclass(frozen=True, repr=False)
class Load(Event):
    """Load what was saved last.

    Attributes:
        rebuild: into a model that is built and attached anew, as in another process; else into the one in training.
    """

    rebuild: bool = True


@dataclass(frozen=True, repr=False)
class SaveSharded(Event):
    """Save the model and the states of its optimizers by `torch.distributed.checkpoint`, each rank its shards.

    Attributes:
        folder: a folder that all ranks see; each method of training has its own within.
    """

    folder: str


@dataclass(frozen=True, repr=False)
class LoadSharded(Event):
    """Load what `SaveSharded` saved, by as many ranks or by another number.

    Attributes:
        folder: as for `SaveSharded`.
        of: the method of training that saved it; empty: the same that loads.
        steps: after so many backwards it was saved, by the same assignments, ...
        ranks: ... on so many ranks, which a script has to do first.
    """

    folder: str
    of: str = ""
    steps: int = 3
    ranks: int = 2
