"""Writes the events of `plan.events.checkpoint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script

FLAT = "StateDictOptions(flatten_optimizer_state_dict=True)"


@write.register(events.Save)
def _(event: events.Save, script: Script) -> None:
    script.add("file = io.BytesIO()", f"torch.save((model.state_dict(), {script.loop.state_dict()}), file)")


@write.register(events.Load)
def _(event: events.Load, script: Script) -> None:
    if event.rebuild:
        script.add("with torch.random.fork_rng():", f"    model = {script.built}")
        write(events.Attach(), script)
    script.add("of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)")
    script.add("model.load_state_dict(of_model)")
    script.add(*script.loop.load_state_dict("of_optimizers"))


@write.register(events.SaveSharded)
def _(event: events.SaveSharded, script: Script) -> None:
    script.add(f"states = get_state_dict({script.forward}, {script.loop.optimizers()}, options={FLAT})")
    script.add(f'dcp.save(dict(zip(("model", "optim"), states)), checkpoint_id={script.checkpoint()})')


@write.register(events.LoadSharded)
def _(event: events.LoadSharded, script: Script) -> None:
    of_model = f"{script.forward}, {script.loop.optimizers()}"
    script.add(f"flat = {FLAT}")
    script.add(f'state = dict(zip(("model", "optim"), get_state_dict({of_model}, options=flat)))')
    script.add(f"dcp.load(state, checkpoint_id={script.checkpoint(event.of)})")
    loaded = 'model_state_dict=state["model"], optim_state_dict=state["optim"], options=flat'
    script.add(f"set_state_dict({of_model}, {loaded})")
