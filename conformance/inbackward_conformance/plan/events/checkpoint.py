"""Events that save and load checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Save(Event):
    """Save the state dicts of the model and of its optimizers to a file in memory."""


@dataclass(frozen=True, repr=False)
class Load(Event):
    """Load the last checkpoint.

    Attributes:
        rebuild: whether to load into a newly built and attached model, as in a new process; if not, into the model in
            training.
    """

    rebuild: bool = True


@dataclass(frozen=True, repr=False)
class SaveSharded(Event):
    """Save a checkpoint with `torch.distributed.checkpoint`; each rank saves its shards.

    Attributes:
        folder: a folder that all ranks can access; each method of training has a subfolder.
    """

    folder: str


@dataclass(frozen=True, repr=False)
class LoadSharded(Event):
    """Load a checkpoint of `SaveSharded`, of the same or of another world size.

    Attributes:
        folder: as for `SaveSharded`.
        of: name of the method of training that saved it; empty for the one that loads.
        steps: number of backwards before it was saved, with the same assignments; a script repeats them first.
        ranks: the world size that it was saved with.
    """

    folder: str
    of: str = ""
    steps: int = 3
    ranks: int = 2
