"""Writes the events of `plan.events.distributed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import ALL, events
from inbackward_conformance.repro import sources
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.WrapDDP)
def _(event: events.WrapDDP, script: Script) -> None:
    if event.ignored:
        script.add(
            f"DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, {list(event.ignored)!r})"
        )
    options = f"**{sources.options(event.options)}"
    if event.mixed_precision:
        dtypes = ", ".join([f"torch.{event.mixed_precision}"] * 3)
        options += f", mixed_precision=torch.nn.parallel.distributed._MixedPrecision({dtypes})"
    script.wrap(script.loop.wrap("wrap_ddp", "model", options, plainly=event.plainly))


@write.register(events.RegisterCommHook)
def _(event: events.RegisterCommHook, script: Script) -> None:
    script.add(f"{script.forward}.register_comm_hook(None, default_hooks.{event.hook})")


@write.register(events.HookThenOptimizer)
def _(event: events.HookThenOptimizer, script: Script) -> None:
    hook, state = script.comm_hook(event.comm_hook)
    assignment, some = script.assign(event.assignment), event.assignment.params != ALL
    script.add(*script.loop.hook_then_optimizer(script.forward, hook, state, assignment, some=some))


@write.register(events.FullyShard)
def _(event: events.FullyShard, script: Script) -> None:
    options = [f"**{sources.options(event.options)}"] * bool(event.options)
    if script.plan.ranks and len(script.plan.ranks.mesh) > 1:  # of one dimension, it is that of all ranks, the default
        script.make_mesh()
        dimensions = '"replicate", "data"' if script.plan.ranks.replicate else '"data"'
        options.insert(0, f"mesh=mesh[{dimensions}]")
    if event.mixed_precision:
        dtypes = ", ".join(f"{argument}=torch.{name}" for argument, name in event.mixed_precision.items())
        options.append(f"mp_policy=fsdp.MixedPrecisionPolicy({dtypes})")
    if event.offload:
        options.append("offload_policy=fsdp.CPUOffloadPolicy(pin_memory=False)")
    modules = [sources.attribute(layer) for layer in (*event.layers, "")]
    if len(modules) > 1:
        with script.block(f"for module in ({', '.join(modules)}):"):
            script.add(script.loop.wrap("fully_shard", "module", ", ".join(options)))
    else:
        script.add(script.loop.wrap("fully_shard", "model", ", ".join(options)))
    script.shard()
    script.attach_to_new_parameters()


@write.register(events.WrapFSDP)
def _(event: events.WrapFSDP, script: Script) -> None:
    options = [f"use_orig_params={event.use_orig_params}", f"device_id=torch.device({script.device!r})"]
    if event.strategy != "FULL_SHARD":  # the default
        options.append(f"sharding_strategy=fsdp.ShardingStrategy.{event.strategy}")
    if event.by_layer:
        options.append("auto_wrap_policy=fsdp.wrap.ModuleWrapPolicy([nn.Linear])")
    script.wrap(script.loop.wrap("wrap_fsdp", "model", ", ".join(options)))
    script.attach_to_new_parameters()


@write.register(events.Replicate)
def _(event: events.Replicate, script: Script) -> None:
    if event.by_fsdp:
        script.make_mesh()
        script.imports.add("from torch.distributed._composable.replicate_with_fsdp import replicate")
        script.add('replicate(model, mesh=mesh["data"])')
        script.shard()
    else:
        script.imports.add("from torch.distributed._composable import replicate")
        script.add("replicate(model)")


@write.register(events.AccumulateUnsynchronised)
def _(event: events.AccumulateUnsynchronised, script: Script) -> None:
    script.draw_batch()
    backward = f"{script.loss(event.skip)}.backward()"
    if script.forward == "model":
        script.add(f"model.{event.switch}(False)", backward, f"model.{event.switch}(True)")
    else:
        with script.block(f"with {script.forward}.no_sync():"):
            script.add(backward)


@write.register(events.Join)
def _(event: events.Join, script: Script) -> None:
    divide = "" if event.divide_by_initial_world_size else "divide_by_initial_world_size=False"
    assert script.plan.ranks
    number = "rank" if script.plan.ranks.world_size <= len(event.batches) else f"rank % {len(event.batches)}"
    with (
        script.block(f"with {script.forward}.join({divide}):"),
        script.block(f"for _ in range({event.batches!r}[{number}]):"),
    ):
        write(events.Backward(), script)


@write.register(events.PerRank)
def _(event: events.PerRank, script: Script) -> None:
    if any(isinstance(of_rank, events.Forward | events.BackwardThrough) for of_rank in event.events):
        raise CannotWrite("a loss that is kept on one rank has no name on another")
    if len(event.events) == 1:
        write(event.events[0], script)
        return
    for number, of_rank in enumerate(event.events):
        last = number == len(event.events) - 1
        with script.block("else:" if last else f"{'el' * bool(number)}if rank == {number}:"):
            write(of_rank, script)
