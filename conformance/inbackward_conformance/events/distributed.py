"""What happens on several ranks: wrapping, gradients that are not yet synchronised, uneven inputs.

Every rank of a run carries out the same events, each over batches of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inbackward_conformance.events.backward import Backward
from inbackward_conformance.plan import ALL, Assignment
from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from inbackward_conformance.events import Event
    from inbackward_conformance.repro.script import Script
    from inbackward_conformance.run import Run


@dataclass(frozen=True, repr=False)
class WrapDDP(Printable):
    """Wrap the model in `DistributedDataParallel`, through the implementation's own call if it has one.

    Attributes:
        options: keyword arguments of `DistributedDataParallel`.
        ignored: parameters that DDP leaves to their rank.
        mixed_precision: the dtype that DDP computes and communicates in, and keeps buffers in; empty: their own.
        plainly: whether the implementation is not told: `DistributedDataParallel` itself is called.
    """

    options: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    mixed_precision: str = ""
    plainly: bool = False

    def happen(self, run: Run) -> None:
        """Forward goes through the wrapper from here on."""
        import torch
        from torch.nn.parallel import DistributedDataParallel
        from torch.nn.parallel.distributed import _MixedPrecision  # DDP takes it, and there is no public name

        options = dict(self.options)
        if self.mixed_precision:
            dtype = getattr(torch, self.mixed_precision)
            options["mixed_precision"] = _MixedPrecision(dtype, dtype, dtype)
        if self.ignored:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(run.model, list(self.ignored))  # noqa: SLF001 (there is no public way)
        wrap = DistributedDataParallel if self.plainly else run.method.wrap_ddp
        run.wrapper = wrap(run.model, **options)

    def spell(self, script: Script) -> None:
        """Forward goes through the wrapper from here on."""
        if self.ignored:
            script.add(
                f"DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, {list(self.ignored)!r})"
            )
        options = f"**{script.options(self.options)}"
        if self.mixed_precision:
            dtypes = ", ".join([f"torch.{self.mixed_precision}"] * 3)
            options += f", mixed_precision=torch.nn.parallel.distributed._MixedPrecision({dtypes})"
        script.wrap(script.loop.wrap("wrap_ddp", "model", options, plainly=self.plainly))


@dataclass(frozen=True, repr=False)
class RegisterCommHook(Printable):
    """Register a communication hook of torch's own with the wrapper, as a user does.

    Attributes:
        hook: a function of `torch.distributed.algorithms.ddp_comm_hooks.default_hooks`.
    """

    hook: str

    def happen(self, run: Run) -> None:
        """Let gradients go this way from here on."""
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        run.wrapper.register_comm_hook(None, getattr(default_hooks, self.hook))  # type: ignore[union-attr,operator]

    def spell(self, script: Script) -> None:
        """Let gradients go this way from here on."""
        script.add(f"{script.forward}.register_comm_hook(None, default_hooks.{self.hook})")


@dataclass(frozen=True, repr=False)
class HookThenOptimizer(Printable):
    """Register a communication hook on the wrapped model, with an optimizer to step behind it.

    In the standard loop the optimizer is an ordinary one. Gradients stay after the step; here the run frees them.

    Attributes:
        assignment: the optimizer, and the parameters that it steps.
        comm_hook: name of the communication hook: allreduce, fp16_compress, bf16_compress or powerSGD.
    """

    assignment: Assignment
    comm_hook: str = "allreduce"

    def happen(self, run: Run) -> None:
        """Register it, once."""
        from inbackward_conformance.comm_hooks import find_comm_hook

        hook, state = find_comm_hook(self.comm_hook)
        optimizer_class, params, options, _ = run.bind(self.assignment)
        some = None if self.assignment.params == ALL else list(params)
        held = list(run.model.parameters()) if some is None else some
        run.method.hook_then_optimizer(run.wrapper, hook, state, (optimizer_class, held, options, True), some)

    def spell(self, script: Script) -> None:
        """Register it, once."""
        script.loop.hook_then_optimizer(
            script,
            *script.comm_hook(self.comm_hook),
            script.assign(self.assignment),
            some=self.assignment.params != ALL,
        )


@dataclass(frozen=True, repr=False)
class FullyShard(Printable):
    """Shard the model by FSDP2's `fully_shard`, through the implementation's own call if it has one.

    Sharding makes new Parameter objects: the standard loop builds its optimizers afterwards.

    Attributes:
        options: keyword arguments of `fully_shard`.
        layers: submodules that are sharded on their own, before the whole.
        replicas: how many copies of the model there are, each sharded over its part of the ranks.
        mixed_precision: names of dtypes, by argument of `MixedPrecisionPolicy`.
        offload: whether shards stay in the memory of the CPU, which is not pinned.
    """

    options: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    replicas: int = 1
    mixed_precision: dict[str, str] = field(default_factory=dict)
    offload: bool = False

    def happen(self, run: Run) -> None:
        """Shard layers first, the whole last."""
        import torch
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy

        ranks = torch.distributed.get_world_size()
        sizes = {"replicate": self.replicas} if self.replicas > 1 else {}
        sizes["shard"] = ranks // self.replicas
        mesh = init_device_mesh(run.device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        options = {**self.options, "mesh": mesh}
        if self.mixed_precision:
            dtypes = {argument: getattr(torch, name) for argument, name in self.mixed_precision.items()}
            options["mp_policy"] = MixedPrecisionPolicy(**dtypes)
        if self.offload:
            options["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
        for layer in self.layers:
            run.method.fully_shard(run.model.get_submodule(layer), **options)
        run.method.fully_shard(run.model, **options)
        run.attach_to_new_parameters()

    def spell(self, script: Script) -> None:
        """Shard layers first, the whole last."""
        size = f"dist.get_world_size() // {self.replicas}" if self.replicas > 1 else "dist.get_world_size()"
        shape = (
            f'({self.replicas}, {size}), mesh_dim_names=("replicate", "shard")' if self.replicas > 1 else f"({size},)"
        )
        script.add(f"mesh = dist.init_device_mesh({script.device!r}, {shape})")
        options = ["mesh=mesh", *[f"**{script.options(self.options)}"] * bool(self.options)]
        if self.mixed_precision:
            dtypes = ", ".join(f"{argument}=torch.{name}" for argument, name in self.mixed_precision.items())
            options.append(f"mp_policy=fsdp.MixedPrecisionPolicy({dtypes})")
        if self.offload:
            options.append("offload_policy=fsdp.CPUOffloadPolicy(pin_memory=False)")
        modules = [script.attribute(layer) for layer in (*self.layers, "")]
        if len(modules) > 1:
            with script.block(f"for module in ({', '.join(modules)}):"):
                script.add(script.loop.wrap("fully_shard", "module", ", ".join(options)))
        else:
            script.add(script.loop.wrap("fully_shard", "model", ", ".join(options)))
        script.plain = ".to_local()"
        script.attach_to_new_parameters()


@dataclass(frozen=True, repr=False)
class WrapFSDP(Printable):
    """Wrap the model in FSDP1's `FullyShardedDataParallel`, through the implementation's own call if it has one.

    The standard loop builds its optimizers afterwards.

    Attributes:
        use_orig_params: whether the parameters stay; else flat ones take their place.
        by_layer: whether each linear layer is wrapped on its own.
        strategy: name of a `ShardingStrategy`.
    """

    use_orig_params: bool = True
    by_layer: bool = False
    strategy: str = "FULL_SHARD"

    def happen(self, run: Run) -> None:
        """Forward goes through the wrapper from here on."""
        from torch import nn
        from torch.distributed.fsdp import ShardingStrategy
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        options: dict[str, Any] = {
            "use_orig_params": self.use_orig_params,
            "sharding_strategy": ShardingStrategy[self.strategy],
            "device_id": run.device,
        }
        if self.by_layer:
            options["auto_wrap_policy"] = ModuleWrapPolicy([nn.Linear])
        run.wrapper = run.method.wrap_fsdp(run.model, **options)
        run.attach_to_new_parameters()

    def spell(self, script: Script) -> None:
        """Forward goes through the wrapper from here on."""
        options = [f"use_orig_params={self.use_orig_params}", f"device_id=torch.device({script.device!r})"]
        options.append(f"sharding_strategy=fsdp.ShardingStrategy.{self.strategy}")
        if self.by_layer:
            options.append("auto_wrap_policy=fsdp.wrap.ModuleWrapPolicy([nn.Linear])")
        script.wrap(script.loop.wrap("wrap_fsdp", "model", ", ".join(options)))
        script.attach_to_new_parameters()


@dataclass(frozen=True, repr=False)
class AccumulateUnsynchronised(Printable):
    """Forward and backward within `no_sync()`: gradients stay on their rank, and nobody steps.

    Under FSDP2 it is `set_requires_gradient_sync(False)`.
    """

    skip: tuple[str, ...] = ()

    def happen(self, run: Run) -> None:
        """Leave local gradients for the next backward to add to."""
        from torch.distributed.fsdp import FSDPModule

        batch = run.next_batch()
        if isinstance(run.model, FSDPModule):
            run.model.set_requires_gradient_sync(False)
            run.method.accumulate(run.model, lambda: run.loss(batch, skip=self.skip))
            run.model.set_requires_gradient_sync(True)
        else:
            with run.wrapper.no_sync():  # type: ignore[union-attr,operator]
                run.method.accumulate(run.model, lambda: run.loss(batch, skip=self.skip))

    def spell(self, script: Script) -> None:
        """Leave local gradients for the next backward to add to."""
        script.draw_batch()
        backward = f"{script.loss(self.skip)}.backward()"
        if script.forward == "model":
            script.add("model.set_requires_gradient_sync(False)", backward, "model.set_requires_gradient_sync(True)")
        else:
            with script.block(f"with {script.forward}.no_sync():"):
                script.add(backward)


@dataclass(frozen=True, repr=False)
class Join(Printable):
    """Train within `join()`, each rank over as many batches as it has.

    Attributes:
        batches: how many, by rank.
        divide_by_initial_world_size: else gradients are divided by the number of ranks that still have a batch.
    """

    batches: tuple[int, ...]
    divide_by_initial_world_size: bool = True

    def happen(self, run: Run) -> None:
        """Train for as many steps."""
        divide = self.divide_by_initial_world_size
        with run.wrapper.join(divide_by_initial_world_size=divide):  # type: ignore[union-attr,operator]
            for _ in range(self.batches[run.rank]):
                Backward().happen(run)

    def spell(self, script: Script) -> None:
        """Train for as many steps."""
        divide = "" if self.divide_by_initial_world_size else "divide_by_initial_world_size=False"
        with (
            script.block(f"with {script.forward}.join({divide}):"),
            script.block(f"for _ in range({self.batches!r}[rank]):"),
        ):
            Backward().spell(script)


@dataclass(frozen=True, repr=False)
class PerRank(Printable):
    """Something else on each rank; the last of the events is for all further ranks."""

    events: tuple[Event, ...]

    def happen(self, run: Run) -> None:
        """Do what is for this rank."""
        self.events[min(run.rank, len(self.events) - 1)].happen(run)

    def spell(self, script: Script) -> None:
        """Do what is for this rank."""
        for number, event in enumerate(self.events):
            last = number == len(self.events) - 1
            with script.block("else:" if last else f"{'el' * bool(number)}if rank == {number}:"):
                event.spell(script)
