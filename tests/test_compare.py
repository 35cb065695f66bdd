"""What is compared, and how: tensors of every kind, and optimizer states of any structure."""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.repro.stand_ins import assert_alike
from inbackward_conformance.tensors import bits, close, copied, describe_difference, same_bits
from inbackward_conformance.training.compare import describe_states, same_states
from inbackward_conformance.training.trace import copy_state
from inbackward_conformance.values import first_difference, first_incomparable, flatten, tensors_in

DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)
PLAIN_DTYPES = [dtype for dtype in DTYPES if not str(dtype).startswith(("torch.q", "torch.complex"))]

COMPLEX = torch.tensor([1 + 2j, 3 - 4j])
TENSORS: dict[str, Callable[[], Tensor]] = {
    "0-dim": lambda: torch.tensor(1.5),
    "0-size": lambda: torch.zeros(2, 0, 3),
    "0-size and sliced": lambda: torch.zeros(4, 3)[:, 3:],
    "one element with a stride": lambda: torch.ones(3)[::11],
    "one element of a column": lambda: torch.ones(5, 7)[2:3, 3:4],
    "expanded": lambda: torch.tensor([1.5]).expand(3, 2),
    "transposed": lambda: torch.arange(6.0).reshape(2, 3).t(),
    "every other": lambda: torch.arange(6.0)[::2],
    "complex": COMPLEX.clone,
    "half complex": lambda: COMPLEX.to(torch.complex32),
    "complex in double precision": lambda: COMPLEX.to(torch.complex128)[::2],
    "conjugated": COMPLEX.conj,
    "negated": lambda: COMPLEX.conj().imag,
    "bool": lambda: torch.tensor([True, False, True])[::2],
    "NaN": lambda: torch.tensor([float("nan"), -0.0, float("inf"), 1.0]),
    "requires grad": lambda: torch.ones(2, requires_grad=True) * 2,
    "parameter": lambda: nn.Parameter(torch.ones(2)),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.arange(3.0), 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_every_kind_are_compared(kind: str) -> None:
    tensor = TENSORS[kind]()
    assert same_bits(tensor, copied(tensor))
    assert close(tensor, copied(tensor), 1e-6)
    if tensor.numel() and not tensor.is_quantized:
        other = copied(tensor.logical_not() if tensor.dtype is torch.bool else tensor * 2)
        assert not same_bits(tensor, other)
        assert not close(tensor, other, 1e-6)
        assert describe_difference(tensor, other)


@pytest.mark.parametrize("dtype", PLAIN_DTYPES, ids=str)
def test_tensors_of_every_dtype_are_compared(dtype: torch.dtype) -> None:
    """Those of less than 8 bits as well, which torch itself neither copies nor converts."""
    size = dtype.itemsize
    stored = (torch.arange(6 * size) % 2).to(torch.uint8).view(dtype).reshape(2, 3)
    for tensor in (stored, stored.t(), stored[:1, ::5]):
        assert same_bits(tensor, copied(tensor))
        assert bits(tensor).shape == (tensor.numel() * size,)
    other = (torch.arange(6 * size) % 2 == 0).to(torch.uint8).view(dtype).reshape(2, 3)
    assert not same_bits(stored, other)
    assert describe_difference(stored, other)


@pytest.mark.parametrize("scale", [0.1, 0.2])
def test_quantized_tensors_with_the_same_integers(scale: float) -> None:
    values, other = (torch.quantize_per_tensor(torch.arange(3.0) * each, each, 0, torch.qint8) for each in (0.1, scale))
    assert same_bits(values, other) is (scale == 0.1)


@pytest.mark.parametrize(
    ("values", "near", "passes"),
    [
        ([1.0, 2.0], [1.0 + 1e-7, 2.0], True),
        ([1.0, 2.0], [1.0 + 1e-5, 2.0], False),
        ([float("nan"), 2.0], [float("nan"), 2.0 + 2e-7], True),
        ([float("nan"), 2.0], [1.0, 2.0], False),
        ([float("inf"), 2.0], [float("inf"), 2.0 + 2e-7], True),
        ([float("inf"), 2.0], [float("inf"), 3.0], False),
        ([float("inf"), 2.0], [float("-inf"), 2.0], False),
        ([float("inf"), 2.0], [1e30, 2.0], False),
        ([1j, 2.0], [1j, 2.0 + 2e-7j], True),
        ([1j, 2.0], [1j, 2.0 + 2e-3j], False),
    ],
)
def test_a_tolerance_is_relative_to_the_largest_finite_value(
    values: list[complex], near: list[complex], passes: bool
) -> None:
    assert close(torch.tensor(values), torch.tensor(near), 1e-6) is passes


class Projector:
    """An object without `__eq__`, as GaLore keeps in its states."""

    def __init__(self, scale: float = 0.25) -> None:
        self.scale = scale
        self.matrix: Tensor | None = torch.arange(4.0).reshape(2, 2)
        self.itself = self

    def project(self, grad: Tensor) -> Tensor:
        return grad

    @classmethod
    def of_ones(cls) -> Projector:
        return cls(1.0)


class Slotted:
    __slots__ = ("__hidden", "scale")

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.__hidden = torch.tensor(scale)


@dataclass
class Moments:
    first: Tensor
    count: int = 0
    history: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Tensor


class Quantized(Tensor):
    """A tensor subclass that supports no operator, and says what it holds."""

    @staticmethod
    def __new__(cls: Any, codes: Tensor) -> Any:
        made = Tensor._make_wrapper_subclass(cls, codes.shape)
        made.codes = codes
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise NotImplementedError(func)


def in_a_cycle(scale: float) -> list[Any]:
    cycle: list[Any] = [scale]
    cycle.append({"back": cycle})
    return cycle


NAN = float("nan")
VALUES: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "flat": (lambda: torch.ones(2), lambda: torch.zeros(2), "'x': largest difference 1"),
    "number": (lambda: 1, lambda: 2, "'x': 2, expected 1"),
    "bool is no number": (lambda: True, lambda: 1, "'x': 1, expected True"),
    "NaN": (lambda: NAN, lambda: -NAN, "'x': nan, expected nan"),
    "complex": (lambda: 1j * NAN, lambda: 1j, "'x': 1j, expected (nan+nanj)"),
    "text": (lambda: "a", lambda: "b", "'x': 'b', expected 'a'"),
    "nested dicts": (
        lambda: {"left": [torch.zeros(2)]},
        lambda: {"left": [torch.full((2,), 1e-3)]},
        "'x'['left'][0]: largest difference 0.001",
    ),
    "missing": (lambda: {"left": {"a": 1}}, lambda: {"left": {}}, "'x'['left']['a'] is missing"),
    "unexpected": (list, lambda: [1], "'x'[0] is unexpected"),
    "kinds of dict": (lambda: OrderedDict(a=[1]), lambda: defaultdict(list, a=[2]), "'x'['a'][0]: 2, expected 1"),
    "tuple": (lambda: (1, (NAN, 2)), lambda: (1, (NAN, 3)), "'x'[1][1]: 3, expected 2"),
    "deque": (lambda: deque([torch.ones(1)]), lambda: deque([torch.zeros(1)]), "'x'[0]: largest difference 1"),
    "set": (lambda: {1, "a"}, lambda: {1, "b"}, "'x'{'a'} is missing"),
    "keys of several types": (lambda: {0: 1, "a": 2, (1, 2): 3}, lambda: {0: 1, "a": 2, (1, 2): 4}, "'x'[(1, 2)]: 4, "),
    "dataclass": (lambda: Moments(torch.ones(2)), lambda: Moments(torch.zeros(2)), "'x'.first: largest difference 1"),
    "frozen": (lambda: Frozen(torch.ones(2)), lambda: Frozen(torch.zeros(2)), "'x'.value: largest difference 1"),
    "object": (Projector, lambda: Projector(0.5), "'x'.scale: 0.5, expected 0.25"),
    "slots": (lambda: Slotted(1.0), lambda: Slotted(2.0), "'x'._Slotted__hidden: largest difference 1"),
    "class of an object": (Projector, lambda: Frozen(torch.ones(1)), "'x'.__class__: 'test_compare.Frozen', expected"),
    "cycle": (lambda: in_a_cycle(1.0), lambda: in_a_cycle(2.0), "'x'[0]: 2.0, expected 1.0"),
    "array": (lambda: np.arange(3)[::-1], lambda: np.arange(3), "'x': largest difference 2"),
    "array of texts": (lambda: np.array(["a"]), lambda: np.array(["b"]), "'x'[0]: 'b', expected 'a'"),
    "scalar of NumPy": (lambda: np.float32(1), lambda: np.float32(2), "'x': largest difference 1"),
    "dtype": (lambda: torch.float32, lambda: torch.float64, "'x': 'torch.float64', expected 'torch.float32'"),
    "function": (lambda: torch.relu, lambda: torch.tanh, "'x': 'torch._VariableFunctionsClass.tanh', expected"),
    "method": (lambda: Projector().project, lambda: Projector.of_ones, "'x': 'test_compare.Projector.of_ones'"),
    "partial": (lambda: partial(max, 1), lambda: partial(max, 2), "'x'.__reduce__()[2][1][0]: 2, expected 1"),
    "date": (lambda: dt.date(2000, 1, 1), lambda: dt.date(2000, 1, 2), "'x'.__reduce__()[1][0]: "),
    "generator of random numbers": (
        lambda: torch.Generator().manual_seed(1),
        lambda: torch.Generator().manual_seed(2),
        "'x'.__reduce__()[2][0]: 2, expected 1",
    ),
    "tensor that supports nothing": (
        lambda: Quantized(torch.ones(2)),
        lambda: Quantized(torch.zeros(2)),
        "'x'.codes: largest difference 1",
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_states_are_compared_deeply(kind: str) -> None:
    make, make_other, told = VALUES[kind]
    expected, same, other = (copy_state({"x": each()}) for each in (make, make, make_other))
    assert unpack(pack(expected)).keys() == expected.keys(), "ranks send states"
    assert same_states([expected], [same])
    assert not first_incomparable(expected)
    assert not same_states([expected], [other])
    assert describe_states([expected], [other]).startswith(told)


NOT_IN_SCRIPTS = {
    *("array", "array of texts", "bool is no number", "class of an object", "date", "deque", "dtype", "function"),
    *("generator of random numbers", "method", "NaN", "partial", "scalar of NumPy", "set"),
    "tensor that supports nothing",
}
"""Scripts are short: they compare tensors, numbers and texts, in dicts, lists, tuples and attributes."""


@pytest.mark.parametrize("kind", sorted(VALUES.keys() - NOT_IN_SCRIPTS))
def test_scripts_compare_states_deeply(kind: str) -> None:
    make, make_other, _ = VALUES[kind]
    assert_alike({"x": make()}, {"x": make()}, "state")
    with pytest.raises((AssertionError, TypeError)):
        assert_alike({"x": make_other()}, {"x": make()}, "state")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (threading.Lock, "'x'['guard'] is of class _thread.lock, which shows nothing to compare"),
        (lambda: (number for number in [1]), "'x'['guard'] is of class builtins.generator, which shows nothing"),
        (lambda: {torch.ones(1): 1}, "'x'['guard'] is a dict of objects, which have no order"),
        (lambda: {Projector()}, "'x'['guard'] is a set of objects, which have no order"),
        (lambda: list(range(20_000)), "is part of a value with more than 10000 parts"),
    ],
)
def test_what_cannot_be_compared_is_told(make: Callable[[], Any], told: str) -> None:
    """And what stands beside it is compared all the same."""
    expected, same, other = (copy_state({"x": {"count": count, "guard": make()}}) for count in (1, 1, 2))
    assert not first_difference(expected, same)
    assert told in first_incomparable(expected)
    assert first_difference(expected, other) == "'x'['count']: 2, expected 1"


@pytest.mark.parametrize("difference", [1e-8, 1e-4])
def test_a_tolerance_holds_in_nested_states_and_for_numbers(difference: float) -> None:
    def state(value: float) -> dict[str, Any]:
        return {"x": [{"sum": value, "mean": torch.tensor([1e-3, value])}], "y": Moments(torch.tensor(value))}

    expected, other = copy_state(state(1.0)), copy_state(state(1.0 + difference))
    assert same_states([expected], [other], 1e-6) is (difference < 1e-6)
    assert not same_states([expected], [other]) or difference == 1e-8


@pytest.mark.parametrize(("expected", "actual"), [(1_000_000, 1_000_001), (True, False), ("a", "b")])
def test_a_tolerance_leaves_whole_numbers_alone(expected: Any, actual: Any) -> None:
    assert first_difference(flatten({"x": expected}), flatten({"x": actual}), 0.1)


def test_a_copy_does_not_change_with_the_state() -> None:
    """Tensors with a graph included, which Python's own deepcopy refuses."""
    param = torch.ones(2, requires_grad=True)
    projector, array, history = Projector(), np.ones(2), [1.0]
    projector.matrix = param * 2
    state = {"projector": projector, "array": array, "history": history, "guard": threading.Lock()}
    copy, unchanged = copy_state(state), copy_state(state)
    with torch.no_grad():
        projector.matrix.mul_(3)
    array[:] = 2
    history.append(2.0)
    assert first_difference(unchanged, copy) == ""
    assert "'array'" in first_difference(copy, copy_state(state))


def test_tensors_in_a_state() -> None:
    """The tensors themselves, each once."""
    first, second, third = torch.ones(1), nn.Parameter(torch.ones(1)), torch.ones(1)
    projector = Projector()
    projector.matrix = first
    state = {"a": [first, {"b": (second,)}], "c": projector, "d": deque([third]), "e": "text", "f": in_a_cycle(1.0)}
    assert list(map(id, tensors_in(state))) == list(map(id, (first, second, third)))
