"""Executes the events of `plan.events.distributed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.distributed import _MixedPrecision  # DDP takes it, and there is no public name

from inbackward_conformance.catalogue.comm_hooks import find_comm_hook
from inbackward_conformance.plan import ALL, events
from inbackward_conformance.training.execute.dispatch import execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbackward_conformance.training.run import TrainingRun


@execute.register(events.WrapDDP)
def _(event: events.WrapDDP, run: TrainingRun) -> None:
    options = dict(event.options)
    if event.mixed_precision:
        dtype = getattr(torch, event.mixed_precision)
        options["mixed_precision"] = _MixedPrecision(dtype, dtype, dtype)
    if event.ignored:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(run.model, list(event.ignored))  # noqa: SLF001 (there is no public way)
    wrap = DistributedDataParallel if event.plainly else run.method.wrap_ddp
    run.wrapper = wrap(run.model, **options)


@execute.register(events.RegisterCommHook)
def _(event: events.RegisterCommHook, run: TrainingRun) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    run.wrapper.register_comm_hook(None, getattr(default_hooks, event.hook))  # type: ignore[union-attr,operator]


@execute.register(events.HookThenOptimizer)
def _(event: events.HookThenOptimizer, run: TrainingRun) -> None:
    hook, state = find_comm_hook(event.comm_hook)
    optimizer_class, params, options, _ = run.bind(event.assignment)
    some = None if event.assignment.params == ALL else list(params)
    own = list(run.model.parameters()) if some is None else some
    run.method.hook_then_optimizer(run.wrapper, hook, state, (optimizer_class, own, options, True), some)


@execute.register(events.FullyShard)
def _(event: events.FullyShard, run: TrainingRun) -> None:
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

    replicated = "replicate" in (run.mesh.mesh_dim_names or ())
    options = {
        **event.options,
        "mesh": run.mesh["replicate", "data"] if replicated else run.mesh["data"],
    }
    if event.mixed_precision:
        dtypes = {argument: getattr(torch, name) for argument, name in event.mixed_precision.items()}
        options["mp_policy"] = MixedPrecisionPolicy(**dtypes)
    if event.offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    for layer in event.layers:
        run.method.fully_shard(run.model.get_submodule(layer), **options)
    run.method.fully_shard(run.model, **options)
    run.attach_to_new_parameters()


@execute.register(events.WrapFSDP)
def _(event: events.WrapFSDP, run: TrainingRun) -> None:
    from torch.distributed.fsdp import ShardingStrategy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    options: dict[str, Any] = {
        "use_orig_params": event.use_orig_params,
        "sharding_strategy": ShardingStrategy[event.strategy],
        "device_id": run.device,
    }
    if event.by_layer:
        options["auto_wrap_policy"] = ModuleWrapPolicy([nn.Linear])
    run.wrapper = run.method.wrap_fsdp(run.model, **options)
    run.attach_to_new_parameters()


@execute.register(events.Replicate)
def _(event: events.Replicate, run: TrainingRun) -> None:
    # There is no public way to either.
    if event.by_fsdp:
        from torch.distributed._composable import replicate_with_fsdp

        replicate_with_fsdp.replicate(run.model, mesh=run.mesh["data"])
    else:
        from torch.distributed._composable.replicate import replicate

        replicate(run.model)


@execute.register(events.AccumulateUnsynchronised)
def _(event: events.AccumulateUnsynchronised, run: TrainingRun) -> None:
    batch = run.next_batch()
    switch: Callable[[bool], None] | None = getattr(run.model, event.switch, None)
    if switch:
        switch(False)
        run.method.accumulate(run.model, lambda: run.loss(batch, skip=event.skip))
        switch(True)
    else:
        with run.wrapper.no_sync():  # type: ignore[union-attr,operator]
            run.method.accumulate(run.model, lambda: run.loss(batch, skip=event.skip))


@execute.register(events.Join)
def _(event: events.Join, run: TrainingRun) -> None:
    divide = event.divide_by_initial_world_size
    with run.wrapper.join(divide_by_initial_world_size=divide):  # type: ignore[union-attr,operator]
        for _ in range(event.batches[run.rank % len(event.batches)]):
            execute(events.Backward(), run)


@execute.register(events.PerRank)
def _(event: events.PerRank, run: TrainingRun) -> None:
    execute(event.events[min(run.rank, len(event.events) - 1)], run)
