"""The events of a plan: frozen dataclasses that hold plain data. Importing this package imports no torch."""

from inbackward_conformance.plan.events.accumulation import MicroBatch
from inbackward_conformance.plan.events.attachment import AttachMore, FailToAttach, Grow, TrainOrdinarily
from inbackward_conformance.plan.events.backward import Accumulate, Attach, Backward, StepAnother, StepByHand
from inbackward_conformance.plan.events.checkpoint import Load, LoadSharded, Save, SaveSharded
from inbackward_conformance.plan.events.clipping import ClippedBackward, ScaledBackward
from inbackward_conformance.plan.events.distributed import (
    AccumulateUnsynchronised,
    FullyShard,
    HookThenOptimizer,
    Join,
    PerRank,
    RegisterCommHook,
    Replicate,
    WrapDDP,
    WrapFSDP,
)
from inbackward_conformance.plan.events.event import Event
from inbackward_conformance.plan.events.graph import (
    AutocastBackward,
    BackwardThrough,
    Compile,
    ComputeGradients,
    Forward,
    FunctionalBackward,
    PenalizedBackward,
)
from inbackward_conformance.plan.events.hooks import ClipGradients, DropGradients
from inbackward_conformance.plan.events.model import (
    Cast,
    Detach,
    Freeze,
    LoadWeights,
    ReplaceByCopy,
    ReplaceParameter,
    SetData,
    SwapParameters,
    Thaw,
    ToEmpty,
)
from inbackward_conformance.plan.events.pipeline import CutIntoStages, RunPipeline
from inbackward_conformance.plan.events.schedule import Power, Scheduler, SetOption, StartSchedule, StepSchedules
from inbackward_conformance.plan.events.tensor_parallel import (
    AverageByHand,
    DeclareLocal,
    Parallelize,
    Style,
)

__all__ = [
    "Accumulate",
    "AccumulateUnsynchronised",
    "Attach",
    "AttachMore",
    "AutocastBackward",
    "AverageByHand",
    "Backward",
    "BackwardThrough",
    "Cast",
    "ClipGradients",
    "ClippedBackward",
    "Compile",
    "ComputeGradients",
    "CutIntoStages",
    "DeclareLocal",
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
    "MicroBatch",
    "Parallelize",
    "PenalizedBackward",
    "PerRank",
    "Power",
    "RegisterCommHook",
    "ReplaceByCopy",
    "ReplaceParameter",
    "Replicate",
    "RunPipeline",
    "Save",
    "SaveSharded",
    "ScaledBackward",
    "Scheduler",
    "SetData",
    "SetOption",
    "StartSchedule",
    "StepAnother",
    "StepByHand",
    "StepSchedules",
    "Style",
    "SwapParameters",
    "Thaw",
    "ToEmpty",
    "TrainOrdinarily",
    "WrapDDP",
    "WrapFSDP",
]
