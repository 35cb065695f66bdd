"""A small copy of an optimizer: over tiny parameters of the same kinds, with what it keeps of those."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from inbackward._params import can_have_gradient

_EXTENT = 3  # of a tiny tensor, in each dimension
_OF_A_KIND = 2  # parameters of one group, with the same number of dimensions, dtype and device
_SCALES = (1.0, 1e3, 1e-3)  # of the gradients, one for each step: a class may clip what is large


class SmallCopy:
    """A small copy of an optimizer, over tiny parameters of the same kinds, with what it keeps of those."""

    def __init__(self, optimizer: Optimizer, *, sparse: bool = False) -> None:
        self._sparse = sparse
        self.optimizer: Any = type(optimizer).__new__(type(optimizer))
        memo: dict[int, Any] = {id(optimizer): self.optimizer}
        groups: list[dict[str, Any]] = []
        state: defaultdict[Any, Any] = defaultdict(dict)
        for group in optimizer.param_groups:
            for param in group["params"]:
                if id(param) not in memo:
                    memo[id(param)] = tiny_of(param)
            few = few_of_each_kind(group["params"])
            others = {key: _copied(value, memo) for key, value in group.items() if key not in {"params", "param_names"}}
            if isinstance(others.get("lr"), float | torch.Tensor):
                # Groups may differ later: a class that takes the rate of the first one for all is to be found.
                others["lr"] = others["lr"] * (1 + len(groups) / 8)
            groups.append({"params": [memo[id(param)] for param in few], **others})
            for param in few:
                if param in optimizer.state:
                    state[memo[id(param)]] = _shrunk(optimizer.state[param], memo)
        memo[id(optimizer.param_groups)] = groups
        attributes = {
            key: _shrunk(value, memo)
            for key, value in vars(optimizer).items()
            if key not in _OF_THE_ORIGINAL and not key.startswith("_optimizer_")
        }
        Optimizer.__setstate__(self.optimizer, {**attributes, "param_groups": groups, "state": state})
        self._groups = [[*group["params"]] for group in groups]

    def step_together(self) -> None:
        """Steps all parameters by one call, several times."""
        for number in range(len(_SCALES)):
            self._give_gradients(number)
            self.optimizer.step()

    def step_apart(self) -> None:
        """Steps one parameter after the other, the last one first, several times."""
        groups = self.optimizer.param_groups
        every_group = [*groups]
        for number in range(len(_SCALES)):
            self._give_gradients(number)
            for group, params in zip(reversed(every_group), reversed(self._groups), strict=True):
                for param in reversed(params):
                    if param.grad is not None:
                        groups[:] = [group]
                        group["params"] = [param]
                        self.optimizer.step()
                        param.grad = None
                group["params"] = params
            groups[:] = every_group

    def steps_with_closure(self) -> bool:
        """Says whether a step succeeds that is given a closure."""
        called = []

        def closure() -> torch.Tensor:
            called.append(True)
            self._give_gradients(0)
            return torch.ones((), requires_grad=True)

        try:
            self.optimizer.step(closure)
        except Exception:  # noqa: BLE001
            return False
        return bool(called)

    def difference(self, other: SmallCopy) -> str | None:
        """Says what differs from another copy that has made the same steps apart; None if nothing does."""
        key = _differing_key(self.optimizer.param_groups, other.optimizer.param_groups)
        if key:
            return f"it keeps state in its parameter groups, {key!r}, which every call of step() changes"
        key = _differing_key([vars(self.optimizer)], [vars(other.optimizer)])
        if key:
            return f"it keeps state of its own, the attribute {key!r}, which every call of step() changes"
        mine, others = (list(itertools.chain.from_iterable(each._groups)) for each in (self, other))  # noqa: SLF001
        for ours, theirs in zip(mine, others, strict=True):
            if not _same(ours, theirs) or not _same(self.optimizer.state.get(ours), other.optimizer.state.get(theirs)):
                return self._what_differs()
        return None

    def _what_differs(self) -> str:
        if any(group and not self._has_gradient(1, group, group[-1]) for group in self._groups) and self._moves_alone:
            return "it moves parameters that have no gradient"
        return "it mixes its parameters: what one is stepped by depends on the others"

    @property
    def _moves_alone(self) -> bool:
        """Whether a step without any gradient changes a parameter."""
        for group in self._groups:
            for param in group:
                param.grad = None
        before = [param.detach().clone() for group in self._groups for param in group]
        try:
            self.optimizer.step()
        except Exception:  # noqa: BLE001
            return False
        after = [param for group in self._groups for param in group]
        return not all(map(_same, before, after))

    def _give_gradients(self, number: int) -> None:
        for group in self._groups:
            for index, param in enumerate(group):
                param.grad = None
                if self._has_gradient(number, group, param):
                    grad = _values(param, phase=number + index + 1.0) * _SCALES[number]
                    param.grad = grad.to_sparse(1) if self._sparse else grad

    def _has_gradient(self, number: int, group: list[torch.Tensor], param: torch.Tensor) -> bool:
        """Says whether a step has a gradient for a parameter: in the second one, the last of a group has none."""
        return number != 1 or len(group) == 1 or param is not group[-1]


_OF_THE_ORIGINAL = {"param_groups", "state", "step", "add_param_group"}  # the last two where somebody has replaced them


def few_of_each_kind(params: list[torch.Tensor]) -> list[torch.Tensor]:
    kinds: defaultdict[Any, dict[int, torch.Tensor]] = defaultdict(dict)
    for param in params:
        of_kind = kinds[param.dim(), param.dtype, param.device]
        if len(of_kind) < _OF_A_KIND:
            of_kind[id(param)] = param
    return [param for of_kind in kinds.values() for param in of_kind.values()]


def tiny_of(param: torch.Tensor) -> torch.Tensor:
    return _values(param, phase=0.0).requires_grad_(can_have_gradient(param))


def _values(like: torch.Tensor, phase: float) -> torch.Tensor:
    """Gives a small tensor of a parameter's kind, with values that are no random numbers."""
    # A nested tensor has no shape.
    shape = [_EXTENT] * like.dim() if like.is_nested else [min(extent, _EXTENT) for extent in like.shape]
    device = torch.device("cpu") if like.device.type == "meta" else like.device
    with torch.device("cpu"):
        count = torch.Size(shape).numel()
        values = (torch.arange(count, dtype=torch.float64) * 1.7 + phase).sin().reshape(shape)
    return values.to(device=device, dtype=like.dtype)


def _shrunk(value: Any, memo: dict[int, Any]) -> Any:
    """Copies a part of what the optimizer keeps: tensors are cut to the extent of tiny parameters."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, torch.Tensor):
        if type(value) is not torch.Tensor or value.is_nested or value.device.type == "meta":
            return _values(value, phase=1.0).square()
        return value.detach()[tuple(slice(_EXTENT) for _ in value.shape)].clone()
    if type(value) in {dict, defaultdict}:
        return {_shrunk_key(key, memo): _shrunk(each, memo) for key, each in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(_shrunk(each, memo) for each in value)
    return _copied(value, memo)


def _shrunk_key(key: Any, memo: dict[int, Any]) -> Any:
    """Gives the tiny parameter for a parameter, and its id for an id."""
    if isinstance(key, torch.Tensor):
        return memo.get(id(key), key)
    return id(memo[key]) if type(key) is int and key in memo else key


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 -- a lock, a process group
        return value


def _differing_key(mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> str | None:
    for ours, theirs in zip(mine, others, strict=True):
        for key in ours.keys() | theirs.keys():
            if key not in {"params", "state", "param_groups"} and not _same(ours.get(key), theirs.get(key)):
                return key
    return None


def _same(mine: Any, other: Any) -> bool:
    """Says whether two values are the same: tensors bit by bit, of objects what can be compared."""
    if isinstance(mine, torch.Tensor) and isinstance(other, torch.Tensor):
        if mine.shape != other.shape or mine.dtype != other.dtype:
            return False
        return bool(torch.equal(*(each.detach().reshape(-1).view(torch.uint8) for each in (mine, other))))
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        # Ids of parameters differ between copies.
        keys: list[str | int] = [key for key in mine.keys() | other.keys() if isinstance(key, str)]
        keys += [key for key in mine.keys() & other.keys() if isinstance(key, int)]
        return all(_same(mine.get(key), other.get(key)) for key in keys)
    if isinstance(mine, list | tuple) and isinstance(other, list | tuple):
        return len(mine) == len(other) and all(map(_same, mine, other))
    if isinstance(mine, int | float | str | bool | None) and isinstance(other, int | float | str | bool | None):
        return mine == other or (mine != mine and other != other)  # noqa: PLR0124 -- NaN
    return type(mine) is type(other)
