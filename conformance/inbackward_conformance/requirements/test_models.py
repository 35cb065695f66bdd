"""Bitwise the standard loop for the models that people train, not for stacks of linear layers alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.plan.need import MAY_RAISE
from inbackward_conformance.plugin.optimizer_cases import optimizers

SIX_STEPS = (Backward(),) * 6
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01})
ADAMW = Assignment("AdamW", {"lr": 0.01})

VIEWS_OF_ONE_MEMORY = [
    "Chunks", "FlatBuffer", "Overlapping", "SameData", "Transposed", "RealPart", "BufferOfParameter"
]  # fmt: skip

with_both = optimizers("assignment", [SGD, ADAMW])


@pytest.mark.must
@with_both
def test_batch_norm(check: Check, assignment: Assignment) -> None:
    """Convolutions with batch norm train as in the standard loop."""
    check(Plan("Convolution", (assignment,), SIX_STEPS))


@pytest.mark.must
@with_both
def test_channels_last(check: Check, assignment: Assignment) -> None:
    """Parameters in the channels-last memory format train as in the standard loop."""
    check(Plan("ChannelsLastConvolution", (assignment,), SIX_STEPS))


@pytest.mark.must
@with_both
def test_dense_embedding(check: Check, assignment: Assignment) -> None:
    """An embedding with a dense gradient trains as in the standard loop, rows that no batch reaches included."""
    check(Plan("DenseEmbedding", (assignment,), SIX_STEPS))


@pytest.mark.must
@optimizers(
    "assignment",
    [
        Assignment("SGD", {"lr": 0.1}),
        Assignment("SGD", {"lr": 0.1, "momentum": 0.9}),
        Assignment("Adagrad", {"lr": 0.1}),
        Assignment("SparseAdam", {"lr": 0.01}),
    ],
    ids=["SGD", "SGD-momentum", "Adagrad", "SparseAdam"],
)
def test_sparse_embedding(check: Check, assignment: Assignment) -> None:
    """An embedding with a sparse gradient trains as in the standard loop under classes that take those."""
    check(Plan("SparseEmbedding", (assignment,), SIX_STEPS))


@pytest.mark.must
def test_sparse_gradient_rejected(check: Check) -> None:
    """Where the optimizer rejects a sparse gradient in the standard loop, backward raises."""
    check(
        Plan("SparseEmbedding", (Assignment("Adam", {"lr": 0.01}, need=MAY_RAISE),), SIX_STEPS), standard_may_raise=True
    )


@pytest.mark.must
@with_both
def test_recurrent(check: Check, assignment: Assignment) -> None:
    """An LSTM, whose weights are used once a time step, trains as in the standard loop."""
    check(Plan("Recurrent", (assignment,), SIX_STEPS))


@pytest.mark.must
@with_both
def test_tied_transformer(check: Check, assignment: Assignment) -> None:
    """A transformer block with dropout whose embedding is its head as well trains as in the standard loop."""
    check(Plan("TiedTransformer", (assignment,), SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("model", VIEWS_OF_ONE_MEMORY)
@with_both
def test_shared_storage(check: Check, assignment: Assignment, model: str) -> None:
    """Parameters that are views of one memory train as in the standard loop, even where they overlap.

    They may be chunks of one tensor, views of a flat buffer, of the same data by `.data`, transposed, or of another
    dtype; a buffer may have the memory of a parameter. An optimizer that steps one of them while backward still has to
    read another changes what that reads, and in most of these cases autograd cannot tell.
    """
    check(Plan(model, (assignment.parameter_by_parameter(),), SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("model", ["Overlapping", "SameData"])
def test_shared_storage_of_two_optimizers(check: Check, model: str) -> None:
    """Where two optimizers have parameters in one memory, it is stepped in the order of attachment.

    The parameters of the first are those that backward reaches last.
    """
    first = replace(ADAMW, params=("entry.weight", "entry.bias", "first", "second"))
    second = replace(SGD, params=("third",))
    check(Plan(model, (first.parameter_by_parameter(), second), SIX_STEPS))


@pytest.mark.must
@with_both
def test_skipped_branches(check: Check, assignment: Assignment) -> None:
    """A forward that skips a branch, another one each time, trains as in the standard loop."""
    events = (Backward(), Backward(skip=("left",)), Backward(skip=("right",))) * 2
    check(Plan("Branches", (assignment,), events))


@pytest.mark.must
@with_both
def test_frozen_parameters(check: Check, assignment: Assignment) -> None:
    """Frozen parameters that were not attached stay as they are, and the others train as in the standard loop."""
    trained = ("0.weight", "2.weight", "2.bias", "4.weight")
    check(Plan("MLP", (replace(assignment, params=trained),), SIX_STEPS, frozen=("0.bias", "4.bias")))


@pytest.mark.must
@with_both
def test_odd_shapes(check: Check, assignment: Assignment) -> None:
    """0-dim and 0-size parameters train as in the standard loop."""
    check(Plan("OddShapes", (assignment,), SIX_STEPS))


@pytest.mark.must
@with_both
def test_complex(check: Check, assignment: Assignment) -> None:
    """Complex parameters train as in the standard loop."""
    check(Plan("ComplexLinear", (assignment,), SIX_STEPS))


@pytest.mark.must
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@with_both
def test_dtype(check: Check, assignment: Assignment, dtype: str) -> None:
    """Parameters in float64 and in bfloat16 train as in the standard loop, in their own precision."""
    check(Plan("MLP", (assignment,), SIX_STEPS, dtype=dtype))


@pytest.mark.must
@with_both
def test_parametrized_layer(check: Check, assignment: Assignment) -> None:
    """A weight-normed layer, its weight computed from the parameters that train, trains as in the standard loop."""
    check(Plan("WeightNormed", (assignment,), SIX_STEPS))
