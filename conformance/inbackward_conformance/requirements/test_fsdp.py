"""Fully sharded data parallel, FSDP2's `fully_shard` and FSDP1: what an optimizer built after sharding gives.

The implementation's own call shards the model where it has one. Batches differ from rank to rank. Each rank's shards,
of parameters, gradients and states, are compared with the same rank's in the standard loop, and equal means to the bit,
at any world size: torch itself brings the gradients together, in both.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.parallel_layers import MLP_BY_LAYER, MLP_KEPT_FOR_BACKWARD, MLP_LAYERS
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.wait_for_step import is_stepped_within
from inbackward_conformance.outcome import NotOffered, Outcome
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AccumulateUnsynchronised,
    Backward,
    Cast,
    ClipGradients,
    Event,
    FullyShard,
    LoadSharded,
    MicroBatch,
    ToEmpty,
    TrainOrdinarily,
    WrapFSDP,
)
from inbackward_conformance.plan.need import NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.raised_error import text_of
from inbackward_conformance.ranks.job import Rank
from inbackward_conformance.ranks.on_ranks import implementation as implementation_of
from inbackward_conformance.tensors import local

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
TRAINED = Assignment("AdamW", {"lr": 0.01}, need=NOT_COMPARED)
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
THREE_STEPS = (Backward(),) * 3
ACCUMULATING = (Backward(), *(AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward()) * 2)

WHOLE = FullyShard()

ORIGINAL = WrapFSDP()
ORIGINAL_BY_LAYER = WrapFSDP(by_layer=True)

both = pytest.mark.parametrize("shard", [WHOLE, ORIGINAL], ids=["FSDP2", "FSDP1"])


@pytest.mark.must
@pytest.mark.parametrize(
    ("shard", "group"),
    [
        (WHOLE, Ranks(2)),
        *((MLP_BY_LAYER, Ranks(size)) for size in (1, 2, 3, 4)),
        (MLP_KEPT_FOR_BACKWARD, Ranks(2)),
        (MLP_BY_LAYER, Ranks(4, replicate=2)),
    ],
    ids=["whole-2", "by-layer-1", "by-layer-2", "by-layer-3", "by-layer-4", "kept-for-backward-2", "replicated-4"],
)
def test_fully_shard(check: Check, shard: FullyShard, group: Ranks) -> None:
    """Attached after `fully_shard`, of the whole model or layer by layer too, each rank trains its shards.

    Some ranks hold no part of a small parameter. With `reshard_after_forward=False` and over a mesh with replicas it
    is the same.
    """
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(shard,), ranks=group))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("shard", [WHOLE, MLP_BY_LAYER], ids=["whole", "by-layer"])
@optimizers("assignment", [ADAMW, Assignment("Adagrad", {"lr": 0.05})])
def test_attached_before(check: Check, shard: FullyShard, assignment: Assignment) -> None:
    """Attached before `fully_shard`, through the implementation's own call: as an optimizer built afterwards.

    `fully_shard` makes new Parameter objects. Adagrad has a state for the old ones from the start.
    """
    check(Plan("MLP", (assignment,), (shard, *THREE_STEPS), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.parametrize("reduced_in", ["bfloat16", "float32"])
def test_mixed_precision(check: Check, reduced_in: str) -> None:
    """A `MixedPrecisionPolicy`: shards are stepped in their own dtype, whatever gradients were computed in."""
    check(
        _sharded(FullyShard(layers=MLP_LAYERS, mixed_precision={"param_dtype": "bfloat16", "reduce_dtype": reduced_in}))
    )


@pytest.mark.must
@pytest.mark.parametrize("shard", [WHOLE, MLP_BY_LAYER], ids=["whole", "by-layer"])
def test_gradient_sync(check: Check, shard: FullyShard) -> None:
    """What has accumulated under `set_requires_gradient_sync(False)` is stepped with the next synchronised backward."""
    check(_sharded(shard, events=ACCUMULATING))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("events", [THREE_STEPS, ACCUMULATING], ids=["synchronised", "accumulating"])
def test_cpu_offload(check: Check, events: tuple[Event, ...]) -> None:
    """A `CPUOffloadPolicy` with `pin_memory=False`: shards, gradients and states are in the memory of the CPU."""
    check(_sharded(FullyShard(layers=MLP_LAYERS, offload=True), events=events))


@pytest.mark.must
@pytest.mark.parametrize("when", ["before", "after"])
def test_clipped_by_hook(check: Check, when: str) -> None:
    """Under `fully_shard` what is stepped is what a post-accumulate-grad hook of the user makes of a gradient."""
    clip = ClipGradients("register_post_accumulate_grad_hook")
    before, events = (
        ((MLP_BY_LAYER, clip), THREE_STEPS) if when == "before" else ((MLP_BY_LAYER,), (clip, *THREE_STEPS))
    )
    check(Plan("MLP", (ADAMW,), events, before=before, ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.parametrize(
    ("shard", "world_size"),
    [
        (ORIGINAL, 2),
        *((ORIGINAL_BY_LAYER, size) for size in (1, 2, 3, 4)),
        (WrapFSDP(strategy="SHARD_GRAD_OP"), 2),
        (WrapFSDP(strategy="NO_SHARD"), 2),
    ],
    ids=["whole-2", "by-layer-1", "by-layer-2", "by-layer-3", "by-layer-4", "shard-grad-op-2", "no-shard-2"],
)
def test_original_parameters(check: Check, shard: WrapFSDP, world_size: int) -> None:
    """Attached after FSDP1 with `use_orig_params=True`, each rank trains its part of the parameters.

    Some ranks hold no part of a parameter.
    """
    check(_sharded(shard, world_size=world_size))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("shard", [ORIGINAL, ORIGINAL_BY_LAYER], ids=["whole", "by-layer"])
def test_original_parameters_attached_before(check: Check, shard: WrapFSDP) -> None:
    """Attached before FSDP1 with `use_orig_params=True`, through the implementation's own call: as afterwards."""
    check(Plan("MLP", (ADAMW,), (shard, *THREE_STEPS), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("when", ["before", "after"])
def test_flat_parameters(check: Check, when: str) -> None:
    """FSDP1 with `use_orig_params=False`, where flat parameters take the place of all others."""
    flat = WrapFSDP(use_orig_params=False)
    before, events = ((), (flat, *THREE_STEPS)) if when == "before" else ((flat,), THREE_STEPS)
    check(Plan("MLP", (ADAMW,), events, before=before, ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.parametrize("shard", [ORIGINAL, ORIGINAL_BY_LAYER], ids=["whole", "by-layer"])
def test_no_sync(check: Check, shard: WrapFSDP) -> None:
    """Gradients accumulated under FSDP1's `no_sync()` are stepped with the next synchronised backward, once."""
    check(_sharded(shard, events=ACCUMULATING))


@pytest.mark.must
@both
def test_attached_in_training(check: Check, shard: Event) -> None:
    """Attached after sharding and a first step of another, ordinary optimizer."""
    check(Plan("MLP", (ADAMW,), THREE_STEPS, before=(shard, TrainOrdinarily()), ranks=Ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    ("before", "conversion"), [((ToEmpty("meta"),), ToEmpty()), ((), Cast("float64"))], ids=["to_empty", "cast"]
)
def test_converted(check: Check, before: tuple[Event, ...], conversion: Event) -> None:
    """Attached after `fully_shard`, parameters train that are then moved from the meta device by `to_empty`, or cast.

    Both swap the tensors under the Parameter objects, and hooks on the tensors are lost.
    """
    check(Plan("MLP", (ADAMW,), (conversion, *THREE_STEPS), before=(*before, WHOLE), ranks=Ranks(2)))


@pytest.mark.must
@both
def test_two_optimizers(check: Check, shard: Event) -> None:
    """Two optimizers on each parameter step in the order of attachment."""
    check(_sharded(shard, assignments=(MOMENTUM, ADAMW)))


@pytest.mark.must
@both
def test_different_optimizers(check: Check, shard: Event) -> None:
    """Weights and biases have optimizers of different classes, though their gradients come together."""
    weights = Assignment("AdamW", {"lr": 0.01}, params=tuple(f"{layer}.weight" for layer in MLP_LAYERS))
    biases = Assignment("SGD", {"lr": 0.1, "momentum": 0.9}, params=tuple(f"{layer}.bias" for layer in MLP_LAYERS))
    check(_sharded(shard, assignments=(weights, biases)))


@pytest.mark.must
@both
def test_frozen_parameters(check: Check, shard: Event) -> None:
    """Frozen parameters among the sharded stay as they are; the others train."""
    check(_sharded(shard, frozen=("0.weight", "2.bias")))


@pytest.mark.must
@both
def test_shared_parameter(check: Check, shard: Event) -> None:
    """A parameter under two names is reduced and stepped once."""
    check(_sharded(shard, model="TwoLayers", shared=(("0.weight", "1.weight"),)))


@pytest.mark.must
@both
def test_unused_parameters(check: Check, shard: Event) -> None:
    """A parameter that no rank has used stays put: neither weight decay nor momentum moves it."""
    events = (Backward(), Backward(skip=("left",)), Backward())
    check(_sharded(shard, model="Branches", events=events))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize("wrap", [MLP_BY_LAYER, ORIGINAL_BY_LAYER], ids=["FSDP2", "FSDP1"])
def test_micro_batches(check: Check, wrap: Event) -> None:
    """Micro-batches that the implementation accumulates are one step, each of them reduced."""
    check(_sharded(wrap, events=(MicroBatch(), MicroBatch(), Backward()) * 2))


@pytest.mark.must
@pytest.mark.parametrize("shards", [True, False], ids=["FSDP2", "FSDP1"])
def test_early_step(check: Check, shards: bool) -> None:
    """Sharded layer by layer, the last layer is stepped before the backward of the first layer is over.

    The backward of the first layer can wait for that step, on each rank. The last layer's gradient has 8 MiB on a rank:
    more than an implementation may have wait for others.
    """
    check.on_ranks(2, _wait_for_early_step, shards, fixed=True)  # shards of more ranks are smaller


def _wait_for_early_step(rank: Rank, name: str, shards: bool) -> None:
    implementation = implementation_of(name)
    optimizer_class, options = bind(implementation, TRAINED)
    features = torch.randn(8, 4, device=rank.device)
    if implementation.declared.own_optimizers:
        model, wrapped = _two_layers(rank, implementation, shards)
        try:
            optimizer = implementation.standard_optimizer(optimizer_class, [*model.parameters()], options)
            wrapped(features).sum().backward()
            optimizer.step()
        except Exception as error:
            raise NotOffered(f"the standard loop with its own optimizer class raises {text_of(error)}") from error
    model, wrapped = _two_layers(rank, implementation, shards)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    implementation.backward(wrapped(features).sum(), model)  # a class may move nothing in its first step
    last = [*model.parameters()][-2]  # the weight: a rank may hold nothing of the bias
    before = local(last.detach()).clone()
    waits: list[bool] = []

    def wait_in_backward(_: nn.Module, __: object, output: Tensor) -> None:
        output.register_hook(lambda _: waits.append(is_stepped_within(5, last, before)))

    model[0].register_forward_hook(wait_in_backward)
    implementation.backward(wrapped(features).sum(), model)
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


def _two_layers(rank: Rank, implementation: Implementation, shards: bool) -> tuple[nn.Sequential, nn.Module]:
    """Return a model that is sharded layer by layer, and what is called in its place."""
    device = torch.device(rank.device)
    model = nn.Sequential(nn.Linear(4, 2048), nn.Linear(2048, 2048)).to(device)
    if shards:
        mesh = init_device_mesh(device.type, (rank.world_size,))
        for module in (*model, model):
            implementation.fully_shard(module, mesh=mesh)
        return model, model
    each_layer = ModuleWrapPolicy([nn.Linear])
    wrapped = implementation.wrap_fsdp(model, use_orig_params=True, auto_wrap_policy=each_layer, device_id=device)
    return model, wrapped


@pytest.mark.must
@pytest.mark.parametrize("assignment", [ADAMW, MOMENTUM], ids=["AdamW", "SGD"])
@pytest.mark.parametrize("saved_by", ["", "StandardLoop"], ids=["own", "standard"])
def test_checkpoint(check: Check, tmp_path: Path, assignment: Assignment, saved_by: str) -> None:
    """Under `fully_shard` two ranks save model and states, four load them and go on as if never stopped.

    Each has its shards, of the states of the listed optimizers too, and `torch.distributed.checkpoint` saves and loads
    them. What the standard loop has saved loads as well.
    """
    _save_with_two_load_with_four(check, tmp_path, MLP_BY_LAYER, assignment, saved_by)


@pytest.mark.must
@pytest.mark.may_refuse
def test_checkpoint_of_original_parameters(check: Check, tmp_path: Path) -> None:
    """The same under FSDP1, whose own state dict wants one optimizer for all that one flat parameter is made of."""
    # With more ranks, some hold nothing of a layer; `get_state_dict` makes states there before it raises.
    _save_with_two_load_with_four(check, tmp_path, ORIGINAL_BY_LAYER, ADAMW, fixed=True)


def _save_with_two_load_with_four(
    check: Check, folder: Path, shard: Event, assignment: Assignment, saved_by: str = "", *, fixed: bool = False
) -> None:
    load = LoadSharded(str(folder), Ranks(2, fixed=fixed), before=(shard,), events=THREE_STEPS, of=saved_by)
    ranks = Ranks(4, fixed=fixed)
    plan = Plan("MLP", (assignment,), (load, *THREE_STEPS), before=(shard,), ranks=ranks)
    check(plan.saving(load))
    if check.findings[-1].outcome is not Outcome.REFUSES:  # else there is nothing to load
        check(plan)


def _sharded(
    shard: Event,
    *,
    world_size: int = 2,
    model: str = "MLP",
    assignments: tuple[Assignment, ...] = (ADAMW,),
    events: tuple[Event, ...] = THREE_STEPS,
    shared: tuple[tuple[str, str], ...] = (),
    frozen: tuple[str, ...] = (),
) -> Plan:
    """Return a plan of attachment after sharding."""
    return Plan(model, assignments, events, before=(shard,), shared=shared, frozen=frozen, ranks=Ranks(world_size))
