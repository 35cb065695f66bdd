"""Events that save and load checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.plan.events.event import Event

if TYPE_CHECKING:
    from inbackward_conformance.plan.ranks import Ranks


FOLDER = re.compile(r"(?<=Sharded\()'[^']+'")
"""The folder of an event in the text of a plan, which is another one in each run."""


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
    """Load a checkpoint that `Plan.saving` saves, of the same or of another device mesh.

    Attributes:
        folder: as for `SaveSharded`.
        ranks: the process group that it was saved by.
        before: what came before attachment then.
        events: what came after attachment, and before it was saved.
        of: name of the method of training that saved it; empty for the one that loads.
    """

    folder: str
    ranks: Ranks
    before: tuple[Event, ...] = ()
    events: tuple[Event, ...] = ()
    of: str = ""
