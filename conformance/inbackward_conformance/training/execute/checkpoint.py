"""Executes the events of `plan.events.checkpoint`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inbackward_conformance.outcome import NotRun
from inbackward_conformance.plan import events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.Save)
def _(event: events.Save, run: TrainingRun) -> None:
    run.saved = io.BytesIO()
    torch.save({"model": run.model.state_dict(), "optimizers": run.method.state_dict(run.model)}, run.saved)


@execute.register(events.Load)
def _(event: events.Load, run: TrainingRun) -> None:
    if event.rebuild:
        run.rebuild()
        execute(events.Attach(), run)
    run.saved.seek(0)
    loaded = torch.load(run.saved, weights_only=False)
    run.model.load_state_dict(loaded["model"])
    run.method.load_state_dict(run.model, loaded["optimizers"])


@execute.register(events.SaveSharded)
def _(event: events.SaveSharded, run: TrainingRun) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    files = _files(run, event.folder)
    save(_sharded_state(run), checkpoint_id=files)


@execute.register(events.LoadSharded)
def _(event: events.LoadSharded, run: TrainingRun) -> None:
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    files = _files(run, event.folder, event.of)
    state = _sharded_state(run)
    load(state, checkpoint_id=files)
    set_state_dict(
        run.wrapper or run.model,
        run.method.optimizers(run.model),
        model_state_dict=state["model"],
        optim_state_dict=state["optimizers"],
        options=_by_parameter(),
    )


def _sharded_state(run: TrainingRun) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    optimizers = run.method.optimizers(run.model)
    model, states = get_state_dict(run.wrapper or run.model, optimizers, options=_by_parameter())
    return {"model": model, "optimizers": states}


def _by_parameter() -> Any:
    """Return options for a checkpoint that does not depend on the number of optimizers."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(flatten_optimizer_state_dict=True)


def _files(run: TrainingRun, folder: str, method: str = "") -> Path:
    if not Path(folder).is_dir():
        raise NotRun(f"rank {run.rank} does not see {folder}: name a folder that all machines share by --basetemp")
    return Path(folder, method or run.method.name)
