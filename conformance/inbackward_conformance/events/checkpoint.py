"""Checkpoints: training that stops and goes on elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.events.backward import Attach
from inbackward_conformance.outcome import NotRun
from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class Save(Printable):
    """Save the model and the states of its optimizers to a file in memory."""

    def happen(self, run: Run) -> None:
        """Save as one does between two steps."""
        import torch

        run.saved = io.BytesIO()
        torch.save({"model": run.model.state_dict(), "optimizers": run.method.state_dict(run.model)}, run.saved)

    def spell(self, script: Script) -> None:
        """Save as one does between two steps."""
        script.add("file = io.BytesIO()", f"checkpoint = (model.state_dict(), {script.loop.state_dict()})")
        script.add("torch.save(checkpoint, file)")


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

    def spell(self, script: Script) -> None:
        """Load the model, then its optimizers."""
        if self.rebuild:
            script.add("with torch.random.fork_rng():", f"    model = {script.built}")
            Attach().spell(script)
        script.add("file.seek(0)", "of_model, of_optimizers = torch.load(file, weights_only=False)")
        script.add("model.load_state_dict(of_model)")
        script.loop.load_state_dict(script, "of_optimizers")


@dataclass(frozen=True, repr=False)
class SaveSharded(Printable):
    """Save the model and the states of its optimizers by `torch.distributed.checkpoint`, each rank its shards.

    Attributes:
        folder: a folder that all ranks see; each method of training has its own within.
    """

    folder: str

    def happen(self, run: Run) -> None:
        """Save what torch makes of the listed optimizers."""
        from torch.distributed.checkpoint.state_dict_saver import save

        files = _files(run, self.folder)
        save(_sharded_state(run), checkpoint_id=files)

    def spell(self, script: Script) -> None:
        """Save what torch makes of the listed optimizers."""
        _spell_state(script)
        script.add(f"dcp.save(state, checkpoint_id={script.checkpoint()})")


@dataclass(frozen=True, repr=False)
class LoadSharded(Printable):
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

    def happen(self, run: Run) -> None:
        """Load into the model, and into the listed optimizers."""
        from torch.distributed.checkpoint.state_dict import set_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load

        files = _files(run, self.folder, self.of)
        state = _sharded_state(run)
        load(state, checkpoint_id=files)
        set_state_dict(
            run.wrapper or run.model,
            run.method.optimizers(run.model),
            model_state_dict=state["model"],
            optim_state_dict=state["optimizers"],
            options=_by_parameter(),
        )

    def spell(self, script: Script) -> None:
        """Load into the model, and into the listed optimizers."""
        _spell_state(script)
        script.add(f"dcp.load(state, checkpoint_id={script.checkpoint(self.of)})")
        loaded = 'model_state_dict=state["model"], optim_state_dict=state["optimizers"], options=options'
        script.add(f"set_state_dict({script.forward}, {script.loop.optimizers()}, {loaded})")


def _sharded_state(run: Run) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    optimizers = run.method.optimizers(run.model)
    model, states = get_state_dict(run.wrapper or run.model, optimizers, options=_by_parameter())
    return {"model": model, "optimizers": states}


def _by_parameter() -> Any:
    """Return the options that make a checkpoint independent of how many optimizers share the parameters."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(flatten_optimizer_state_dict=True)


def _files(run: Run, folder: str, method: str = "") -> Path:
    if not Path(folder).is_dir():
        raise NotRun(f"rank {run.rank} does not see {folder}: name a folder that all machines share by --basetemp")
    return Path(folder, method or type(run.method).__name__)


def _spell_state(script: Script) -> None:
    script.add("options = StateDictOptions(flatten_optimizer_state_dict=True)")
    script.add(f"states = get_state_dict({script.forward}, {script.loop.optimizers()}, options=options)")
    script.add('state = dict(zip(("model", "optimizers"), states))')
