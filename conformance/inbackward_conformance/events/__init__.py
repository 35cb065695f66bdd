"""The events of a plan: plain data, each of which knows what it does to a run, and how it is written in a script.

An event is the same for the standard loop and for an implementation; where the two part, it asks the method
(`run.method`) that the run was given. Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from inbackward_conformance.events.attachment import AttachMore, FailToAttach, Grow, TrainOrdinarily
from inbackward_conformance.events.backward import Accumulate, Attach, Backward, StepAnother, StepByHand
from inbackward_conformance.events.checkpoint import Load, LoadSharded, Save, SaveSharded
from inbackward_conformance.events.distributed import (
    AccumulateUnsynchronised,
    FullyShard,
    HookThenOptimizer,
    Join,
    PerRank,
    RegisterCommHook,
    WrapDDP,
    WrapFSDP,
)
from inbackward_conformance.events.graph import (
    AutocastBackward,
    BackwardThrough,
    Compile,
    ComputeGradients,
    Forward,
    FunctionalBackward,
    PenalizedBackward,
)
from inbackward_conformance.events.hooks import ClipGradients, DropGradients
from inbackward_conformance.events.model import (
    Cast,
    Detach,
    Freeze,
    LoadWeights,
    ReplaceByCopy,
    ReplaceParameter,
    SetData,
    SwapParameters,
    Thaw,
)
from inbackward_conformance.events.schedule import Power, Scheduler, SetOption, StartSchedule, StepSchedules

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run

__all__ = [
    "Accumulate",
    "AccumulateUnsynchronised",
    "Attach",
    "AttachMore",
    "AutocastBackward",
    "Backward",
    "BackwardThrough",
    "Cast",
    "ClipGradients",
    "Compile",
    "ComputeGradients",
    "Detach",
    "DropGradients",
    "Event",
    "FailToAttach",
    "Forward",
    "Freeze",
    "FullyShard",
    "FunctionalBackward",
    "Grow",
    "HookThenOptimizer",
    "Join",
    "Load",
    "LoadSharded",
    "LoadWeights",
    "PenalizedBackward",
    "PerRank",
    "Power",
    "RegisterCommHook",
    "ReplaceByCopy",
    "ReplaceParameter",
    "Save",
    "SaveSharded",
    "Scheduler",
    "SetData",
    "SetOption",
    "StartSchedule",
    "StepAnother",
    "StepByHand",
    "StepSchedules",
    "SwapParameters",
    "Thaw",
    "TrainOrdinarily",
    "WrapDDP",
    "WrapFSDP",
]


class Event(Protocol):
    """Something that happens in a run."""

    def happen(self, run: Run) -> None:
        """Carry the event out."""

    def spell(self, script: Script) -> None:
        """Write the event down, as the source of a training."""
