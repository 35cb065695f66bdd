"""DistributedDataParallel: what a standard optimizer gives under it, on every rank.

The implementation's own call wraps the model where it has one. Batches differ from rank to rank. Up to two ranks,
equal means to the bit: two numbers have one sum, and half of it is exact. With three and more, sums depend on their
order and a third is rounded, and an implementation may reduce in another order than the reducer, or divide after it:
two roundings of a float32 pass for each of four steps, 1e-6 of the largest value of a tensor. The ranks are equal to
each other to the bit, however many.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.wait_for_step import is_stepped_within
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.plan import Assignment, Plan, Ranks
from inbackward_conformance.plan.events import (
    AccumulateUnsynchronised,
    Backward,
    BackwardThrough,
    Event,
    Forward,
    Freeze,
    Join,
    MicroBatch,
    PerRank,
    RegisterCommHook,
    Thaw,
    TrainOrdinarily,
    WrapDDP,
)
from inbackward_conformance.plan.need import NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.ranks.job import Rank
from inbackward_conformance.ranks.on_ranks import implementation as implementation_of

ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
MOMENTUM = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
PLAIN_SGD = Assignment("SGD", {"lr": 0.01}, need=NOT_COMPARED)
FOUR_STEPS = (Backward(),) * 4

A_BUCKET_EACH = {"bucket_cap_mb": 1e-5}
VIEWS = {"views": {"gradient_as_bucket_view": True}, "no-views": {}}
PLACES = ["before", "after", "first-forward", "first-step"]

FIRST_LAYER = ("0.weight", "0.bias")
OTHER_LAYERS = ("2.weight", "2.bias", "4.weight", "4.bias")


def ranks(world_size: int) -> Ranks:
    """Return so many ranks, with the tolerance that the chapter states for three and more."""
    return Ranks(world_size, tolerance=1e-6)


def attached(place: str, wrap: WrapDDP) -> tuple[tuple[Event, ...], tuple[Event, ...]]:
    """Return the events before attachment and those after it, up to the first step where there was a forward."""
    match place:
        case "before":
            return (), (wrap,)
        case "after":
            return (wrap,), ()
        case "first-forward":
            return (wrap, Forward()), (BackwardThrough(),)
        case "first-step":
            return (wrap, TrainOrdinarily()), ()
    raise ValueError(place)


@pytest.mark.must
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("place", PLACES)
def test_equality(check: Check, place: str, world_size: int) -> None:
    """Attached before or after wrapping, or even after the first forward, every rank trains as under DDP.

    After the first forward: with its backward to come, or after a step by an ordinary optimizer.
    """
    before, events = attached(place, WrapDDP())
    check(Plan("MLP", (ADAMW,), (*events, *FOUR_STEPS), before=before, ranks=ranks(world_size)))


@pytest.mark.must
@pytest.mark.parametrize("world_size", [3, 4])
def test_same_on_all_ranks(check: Check, world_size: int) -> None:
    """After each step, a parameter that DDP averages is the same on all ranks, to the bit."""
    check(_wrapped({}, "MLP", FOUR_STEPS, world_size=world_size))


@pytest.mark.must
@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS)
def test_gradients_are_freed(check: Check, options: dict[str, Any]) -> None:
    """After backward, `.grad` of every parameter is None, also where it was a view of a bucket."""
    check(_wrapped(options, "MLP", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS)
def test_many_buckets(check: Check, options: dict[str, Any], place: str) -> None:
    """Training goes on as ever when buckets are rebuilt: one of all parameters first, then one for each, reversed.

    DDP does so after the first backward, when it knows the order of gradients. These are views of buckets, or not.
    """
    before, events = attached(place, WrapDDP({**A_BUCKET_EACH, **options}))
    check(Plan("MLP", (MOMENTUM,), (*events, *FOUR_STEPS), before=before, ranks=ranks(2)))


@pytest.mark.must
def test_static_graph(check: Check) -> None:
    """With `static_graph=True` every backward steps, the first one too."""
    check(_wrapped({"static_graph": True}, "MLP", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("buckets", [{}, A_BUCKET_EACH], ids=["one-bucket", "a-bucket-each"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["one-rank", "all-ranks"])
def test_unused_parameters(check: Check, everywhere: bool, buckets: dict[str, Any], options: dict[str, Any]) -> None:
    """`find_unused_parameters=True`: unused on one rank a parameter is stepped on all, unused on all it stays put.

    Neither weight decay nor momentum moves it.
    """
    without = Backward(skip=("left",))
    event = without if everywhere else PerRank((Backward(), without))
    options = {"find_unused_parameters": True, **buckets, **options}
    check(_wrapped(options, "Branches", (Backward(), event, event, Backward())))


@pytest.mark.must
@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_no_sync(check: Check, world_size: int, options: dict[str, Any]) -> None:
    """Gradients accumulated under `no_sync()` are stepped with the next synchronised backward, once."""
    twice = (AccumulateUnsynchronised(), AccumulateUnsynchronised(), Backward())
    check(_wrapped(options, "MLP", (Backward(), *twice, *twice), world_size=world_size))


@pytest.mark.must
@pytest.mark.needs("accumulate")
@pytest.mark.parametrize("unsynchronised", [True, False], ids=["no_sync", "synchronised"])
def test_micro_batches(check: Check, unsynchronised: bool) -> None:
    """Micro-batches that the implementation accumulates are one step, with `no_sync()` around them and without."""
    micro_batch = MicroBatch(unsynchronised=unsynchronised)
    check(_wrapped({}, "MLP", (micro_batch, micro_batch, Backward()) * 2))


@pytest.mark.must
def test_shared_parameter(check: Check) -> None:
    """A parameter under two names is reduced and stepped once."""
    check(_wrapped({}, "TwoLayers", FOUR_STEPS, shared=(("0.weight", "1.weight"),)))


@pytest.mark.must
def test_two_optimizers(check: Check) -> None:
    """Two optimizers on each parameter step in the order of attachment."""
    check(_wrapped({}, "MLP", FOUR_STEPS, assignments=(MOMENTUM, ADAMW)))


@pytest.mark.must
def test_different_optimizers(check: Check) -> None:
    """Parameters of one bucket train by different optimizers."""
    assignments = (Assignment("Adagrad", {"lr": 0.1}, FIRST_LAYER), Assignment("AdamW", {"lr": 0.01}, OTHER_LAYERS))
    check(_wrapped({}, "MLP", FOUR_STEPS, assignments=assignments))


@pytest.mark.must
@pytest.mark.parametrize("place", PLACES[:2])
def test_ignored_parameters(check: Check, place: str) -> None:
    """What DDP was told to ignore is stepped on each rank's own gradients; it differs from rank to rank then."""
    before, events = attached(place, WrapDDP(ignored=("2.weight",)))
    check(Plan("MLP", (MOMENTUM,), (*events, *FOUR_STEPS), before=before, ranks=ranks(2)))


@pytest.mark.must
def test_frozen_parameters(check: Check) -> None:
    """Parameters that are frozen when the model is wrapped stay as they are, though they are attached."""
    check(_wrapped({}, "MLP", FOUR_STEPS, frozen=FIRST_LAYER))


@pytest.mark.must
def test_frozen_in_training(check: Check) -> None:
    """Parameters that are frozen later, under `find_unused_parameters=True`, stay as they are from then on."""
    events = (*FOUR_STEPS[:2], Freeze(FIRST_LAYER), *FOUR_STEPS[:2])
    check(_wrapped({"find_unused_parameters": True}, "MLP", events))


@pytest.mark.must
@pytest.mark.may_refuse("late")
def test_thawed_in_training(check: Check) -> None:
    """Parameters that were frozen when the model was wrapped, and thaw later, train as under DDP, or it refuses.

    DDP does not average them: each rank trains them on its own gradients.
    """
    check(_wrapped({}, "MLP", (Backward(), Thaw(FIRST_LAYER), *FOUR_STEPS[:2]), frozen=FIRST_LAYER))


@pytest.mark.must
@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS)
def test_complex_parameters(check: Check, options: dict[str, Any]) -> None:
    """Complex parameters train as under DDP, which keeps their gradients in its buckets as pairs of real numbers."""
    check(_wrapped(options, "ComplexLinear", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse
@optimizers("assignment", [Assignment("SGD", {"lr": 0.1}), Assignment("Adagrad", {"lr": 0.1})])
def test_sparse_gradients(check: Check, assignment: Assignment) -> None:
    """Sparse gradients are averaged and stepped, or refused."""
    check(_wrapped({}, "SparseEmbedding", FOUR_STEPS, assignments=(assignment,)))


@pytest.mark.must
@pytest.mark.parametrize("broadcast", [True, False], ids=["broadcast", "no-broadcast"])
def test_buffers(check: Check, broadcast: bool) -> None:
    """Buffers, the running statistics of a batch norm, are those of rank 0, or each rank's own."""
    check(_wrapped({"broadcast_buffers": broadcast}, "Convolution", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("model", ["CheckpointedDropout", "ReentrantCheckpointedDropout"])
def test_checkpoint(check: Check, model: str) -> None:
    """A model with activation checkpointing, reentrant or not, trains as under DDP."""
    check(_wrapped({}, model, FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("model", ["CheckpointedTwice", "ReentrantCheckpointedTwice"])
def test_checkpoint_in_a_static_graph(check: Check, model: str) -> None:
    """A block that is checkpointed twice is stepped once a backward.

    Where that is reentrant its gradient comes in two parts, and DDP wants `static_graph=True`.
    """
    check(_wrapped({"static_graph": True}, model, FOUR_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("when", ["before", "after"])
def test_comm_hook(check: Check, when: str) -> None:
    """A communication hook of the user's, registered before or after attachment, is used, or refused.

    This one compresses gradients to float16, which shows.
    """
    hook = RegisterCommHook("fp16_compress_hook")
    before, events = ((WrapDDP(), hook), ()) if when == "before" else ((WrapDDP(),), (hook,))
    check(Plan("MLP", (MOMENTUM,), (*events, *FOUR_STEPS), before=before, ranks=ranks(2)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("world_size", [2, 1])
def test_plain_ddp(check: Check, world_size: int, place: str) -> None:
    """Wrapped in plain DDP, without a word to the implementation, ranks train as ever, or it refuses.

    A hook of a parameter comes before the all-reduce: ranks that step there drift apart, and nobody is told. With one
    rank too, DDP puts the averaged gradient in place at the end of backward, after the step.
    """
    before, events = attached(place, WrapDDP(plainly=True))
    check(Plan("MLP", (MOMENTUM,), (*events, *FOUR_STEPS), before=before, ranks=ranks(world_size)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.accelerator
def test_mixed_precision(check: Check) -> None:
    """DDP's own mixed precision, bfloat16 in forward and on the way, gives the same float32 parameters, or is refused.

    On a CPU plain DDP cannot do it: its forward records an event.
    """
    check(_plan(WrapDDP(mixed_precision="bfloat16"), "MLP", FOUR_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("initial", [True, False], ids=["initial-world-size", "active-ranks"])
def test_join(check: Check, initial: bool, world_size: int) -> None:
    """Uneven inputs under `join()`, divided by all ranks or by those that are still active."""
    join = Join((2, 4, 3)[:world_size], divide_by_initial_world_size=initial)
    check(_wrapped({}, "MLP", (join,), world_size=world_size))


@pytest.mark.must
def test_early_step(check: Check) -> None:
    """The last layer is stepped before the backward of the first layer is over, and so before its all-reduce begins.

    With a bucket for each parameter, the backward of the first layer can wait for that step.
    """
    check.on_ranks(2, _wait_for_early_step)


def _wait_for_early_step(rank: Rank, name: str) -> None:
    implementation = implementation_of(name)
    model = MLP().to(rank.device)
    last = model.get_parameter("4.weight")
    wrapped = implementation.wrap_ddp(model, **A_BUCKET_EACH)
    optimizer_class, options = bind(implementation, PLAIN_SGD)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    features = torch.randn(8, 4, device=rank.device)
    for _ in range(2):  # the first backward may go without: DDP has yet to learn the order of gradients
        implementation.backward(wrapped(features).sum(), model)
    before = last.detach().clone()
    waits: list[bool] = []

    def wait_in_backward(_: nn.Module, __: object, output: Tensor) -> None:
        output.register_hook(lambda _: waits.append(is_stepped_within(5, last, before)))

    model[0].register_forward_hook(wait_in_backward)
    implementation.backward(wrapped(features).sum(), model)
    assert waits == [True], "the last layer was not stepped while the first layer's backward waited for it for 5 s"


@pytest.mark.must
@pytest.mark.accelerator
def test_current_stream(check: Check) -> None:
    """Parameters read on the current stream right after backward show the step, on whatever stream it was made.

    On a CPU there are no streams.
    """
    check.on_ranks(2, _read_right_after_backward)


def _read_right_after_backward(rank: Rank, name: str) -> None:
    implementation = implementation_of(name)
    model = MLP().to(rank.device)
    wrapped = implementation.wrap_ddp(model)
    optimizer_class, options = bind(implementation, PLAIN_SGD)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
    busy = torch.zeros(4096, 4096, device=rank.device)
    hooked: list[object] = []

    def keep_the_stream_busy(*_: object) -> None:
        hooked.append(None)
        busy.matrix_power(1024)

    for optimizer in implementation.optimizers(model):
        optimizer.register_step_pre_hook(keep_the_stream_busy)
    for _ in range(3):
        implementation.backward(wrapped(torch.randn(8, 4, device=rank.device)).sum(), model)
        right_after = [param.detach().clone() for param in model.parameters()]
        torch.accelerator.synchronize(rank.device)
        for (of, param), read in zip(model.named_parameters(), right_after, strict=True):
            assert torch.equal(param, read), f"{of}, read right after backward, was not yet stepped"
    _require_step_hooks(implementation, ran=bool(hooked))


@pytest.mark.must
@pytest.mark.parametrize("where", ["forward", "hook", "step"])
def test_rank_that_raises(check: Check, where: str) -> None:
    """Where one rank raises, in forward, in a hook of a gradient or in a step, its caller is told.

    The others, who wait for it in this step or in the next one, do not wait for ever: they get an error.
    """
    check.on_ranks(3, _raise_on_the_last, where)


def _raise_on_the_last(rank: Rank, name: str, where: str) -> None:
    implementation = implementation_of(name)
    model = MLP().to(rank.device)
    wrapped = implementation.wrap_ddp(model)
    optimizer_class, options = bind(implementation, PLAIN_SGD)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])

    def train() -> None:
        implementation.backward(wrapped(torch.randn(8, 4, device=rank.device)).sum(), model)

    def fail(*_: object) -> None:
        raise _Planned(f"a {where} of the user's raises")

    stepped: list[object] = []
    implementation.optimizers(model)[0].register_step_pre_hook(lambda *_: stepped.append(None))
    for _ in range(2):
        train()
    _require_step_hooks(implementation, ran=where != "step" or bool(stepped))
    raises = rank.number == rank.world_size - 1
    if raises:
        match where:
            case "forward":
                model[2].register_forward_hook(fail)
            case "hook":
                model.get_parameter("2.weight").register_hook(fail)
            case "step":
                implementation.optimizers(model)[0].register_step_pre_hook(fail)
    told = None
    try:
        for _ in range(1 if raises else 2):
            train()
    except Exception as error:  # noqa: BLE001 (its own on one rank, of a connection or a time limit on the others)
        told = type(error)
    assert told, f"rank {rank.number} is told nothing of the error of rank {rank.world_size - 1}"


def _require_step_hooks(implementation: Implementation, *, ran: bool) -> None:
    """Require that step hooks have run, of an implementation with optimizer classes of its own."""
    if implementation.declared.own_optimizers and not ran:
        raise NotOffered("its own optimizers step without `Optimizer.step`, so that no hook runs in their steps")


class _Planned(Exception):
    pass


def _wrapped(options: dict[str, Any], model: str, events: tuple[Event, ...], **plan: Any) -> Plan:
    return _plan(WrapDDP(options), model, events, **plan)


def _plan(
    wrap: WrapDDP,
    model: str,
    events: tuple[Event, ...],
    *,
    world_size: int = 2,
    assignments: tuple[Assignment, ...] = (MOMENTUM,),
    **others: Any,
) -> Plan:
    return Plan(model, assignments, events, before=(wrap,), ranks=ranks(world_size), **others)
