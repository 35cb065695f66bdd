"""Writes the events of `plan.events.model`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.Cast)
def _(event: events.Cast, script: Script) -> None:
    script.add(*_swapping(f"model.to(torch.{event.dtype})", event.swap))
    script.cast(event.dtype)


@write.register(events.SetData)
def _(event: events.SetData, script: Script) -> None:
    param = sources.attribute(event.param)
    if event.by == "data":
        script.add(f"{param}.data = {param}.detach() * 0.5")
    else:
        script.add("with torch.no_grad():", f"    {param}.set_({param}.detach() * 0.5)")


@write.register(events.Freeze)
def _(event: events.Freeze, script: Script) -> None:
    script.add(f"for param in {sources.parameters(event.params)}:", "    param.requires_grad_(False)")


@write.register(events.Thaw)
def _(event: events.Thaw, script: Script) -> None:
    script.add(f"for param in {sources.parameters(event.params)}:", "    param.requires_grad_(True)")


@write.register(events.LoadWeights)
def _(event: events.LoadWeights, script: Script) -> None:
    of_each = "value * 0.5 if value.is_floating_point() else value"
    script.add(f"halved = {{name: {of_each} for name, value in model.state_dict().items()}}")
    script.add(*_swapping(f"model.load_state_dict(halved{', assign=True' * event.assign})", event.swap))
    script.restructured |= event.assign and not event.swap


@write.register(events.ToEmpty)
def _(event: events.ToEmpty, script: Script) -> None:
    script.add(f"model.to_empty(device={event.device or script.device!r})")
    if not event.device:
        with script.block("with torch.no_grad():"), script.block("for number, param in enumerate(model.parameters()):"):
            script.add("param.fill_((-1) ** number * 0.1 * (number + 1))")


@write.register(events.ReplaceParameter)
def _(event: events.ReplaceParameter, script: Script) -> None:
    param = sources.attribute(event.param)
    script.add(f"{param} = nn.Parameter({param}.detach().clone())")
    script.restructured = True


@write.register(events.SwapParameters)
def _(event: events.SwapParameters, script: Script) -> None:
    first, second = sources.attribute(event.first), sources.attribute(event.second)
    script.add(f"{first}, {second} = {second}, {first}")
    script.restructured = True


@write.register(events.ReplaceByCopy)
def _(event: events.ReplaceByCopy, script: Script) -> None:
    part = sources.attribute(event.submodule)
    script.add(f"{part} = copy.deepcopy({part})")
    script.restructured |= bool(event.submodule)


def _swapping(conversion: str, swap: bool) -> list[str]:
    switch = "torch.__future__.set_swap_module_params_on_conversion"
    return [f"{switch}(True)", conversion, f"{switch}(False)"] if swap else [conversion]


@write.register(events.Detach)
def _(event: events.Detach, script: Script) -> None:
    script.add(*script.loop.detach())
