"""An ordinary optimizer that steps a bucket of its parameters at a time.

`Optimizer.step` steps the parameters in `param_groups` that hold a gradient. So for the length of one call the groups
list only those whose gradients are there; nothing else of the optimizer changes.
"""

from __future__ import annotations

import operator
import threading
from typing import TYPE_CHECKING, Any

from inbackward import _engine
from inbackward._assignment import Assignment
from inbackward._attachment import attachment_of
from inbackward._bucket import nbytes
from inbackward._params import can_have_gradient, listed_params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch
    from torch.optim import Optimizer

    from inbackward._attachment import Attachment
    from inbackward._bucket import Bucket


class HandedOver(Assignment):
    """The parameters of an optimizer that was handed over.

    Attributes:
        optimizer: The optimizer.
        clip: What `Handle.clip` has set.
        skips: Whether gradients are freed without a step.
        is_taken_back: Whether the optimizer is an ordinary one again.
    """

    steps_each_alone = False

    def __init__(self, optimizer: Optimizer, bucket_bytes: int) -> None:
        super().__init__(hooked=True, bucket_bytes=bucket_bytes)
        self.optimizer = optimizer
        self.clip: Callable[[list[torch.Tensor]], object] | None = None
        self.skips = False
        self._groups: list[list[torch.Tensor]] = []  # what each parameter group lists
        self._params: list[torch.Tensor] = []  # once each
        self._is_alone: bool | None = None  # whether the optimizer is the only one of each; None: to be found out
        self._places: dict[int, list[tuple[int, int]]] = {}  # by id of the parameter: number of the group, and in it
        self._stepping = threading.Lock()  # the engine has a thread for each device
        self._stepping_thread = 0
        self._replaced: Any = None
        self.is_taken_back = False

    def follow_groups_added_later(self) -> None:
        """Attaches to the parameters of groups as soon as they are added."""
        optimizer = self.optimizer
        add = optimizer.add_param_group

        def add_param_group(param_group: dict[str, Any]) -> None:
            add(param_group)
            self.follow()

        # As torch's schedulers do with step: attributes of an optimizer are neither saved nor copied with it. This one
        # keeps what hands the optimizer over alive, also while it has no parameters.
        self._replaced = optimizer.__dict__.get("add_param_group")
        optimizer.add_param_group = add_param_group  # type: ignore[method-assign]

    @property
    def changes(self) -> tuple[Callable[[list[torch.Tensor]], object], ...]:
        """What changes gradients before they are stepped."""
        return tuple(change for change in (self.transform, self.clip) if change is not None)

    def let_go(self) -> None:
        """Follows the optimizer's parameter groups no more."""
        self.is_taken_back = True
        self.optimizer.__dict__.pop("add_param_group", None)
        if self._replaced is not None:
            self.optimizer.add_param_group = self._replaced  # type: ignore[method-assign]

    def forget(self, attachment: Attachment) -> None:
        """Forgets a parameter that is detached."""
        super().forget(attachment)
        self._is_alone = None
        if not self._attachments:
            self.let_go()

    def follow(self) -> None:
        """Attaches to parameters that the groups list anew, and lets go of those that they dropped."""
        params = {id(param): param for param in listed_params(self.optimizer)}
        added = [param for key, param in params.items() if key not in self._places and can_have_gradient(param)]
        self.attach((param, self.optimizer) for param in added)
        self._groups = [[*group["params"]] for group in self.optimizer.param_groups]
        self._params = [*params.values()]
        self._places = {}
        for number, group in enumerate(self._groups):
            for index, param in enumerate(group):
                self._places.setdefault(id(param), []).append((number, index))
        for attachment in self.attachments:
            if id(attachment.param) not in self._places:
                attachment.remove(self)

    def follow_edits(self) -> None:
        """Follows parameter groups that were edited by hand."""
        if self._stepping_thread == threading.get_ident():
            return
        with self._stepping:  # in a step of another thread, the groups list a part of the parameters
            now = [group["params"] for group in self.optimizer.param_groups]
            if len(now) != len(self._groups) or not all(map(_same_objects, now, self._groups)):
                self.follow()

    def note_others(self) -> None:
        """Called when the optimizers of a parameter have changed, of this assignment or of others."""
        self._is_alone = None

    def join(self, run: _engine.Pass) -> Bucket:
        """Takes part in a pass, which has reached one of the parameters."""
        if self._is_alone is None:
            attached = map(attachment_of, self._params)
            self._is_alone = all(each is not None and [*each.optimizers] == [self] for each in attached)
        bucket = super().join(run)
        if self.gate.task == bucket.task and sum(map(nbytes, self._params)) <= self.bucket_bytes:
            self.gate.open(bucket.task, bucket.waiting.append)  # there is nothing else to be done before the end
        return bucket

    @property
    def is_alone(self) -> bool:
        """Whether it is known that no other assignment has any of the parameters."""
        return bool(self._is_alone)

    @property
    def params(self) -> list[torch.Tensor]:
        """The parameters, once each."""
        return self._params

    def step_at_end(self, params: list[torch.Tensor], run: _engine.Pass) -> None:
        """Steps parameters at the end of a pass, with all of their optimizers."""
        if self._is_alone and not run.is_distributed and len(self._open) == 1:
            self._step_all(params)
        else:
            super().step_at_end(params, run)

    def step_now(self, params: Iterable[torch.Tensor]) -> None:
        """Steps parameters of this optimizer."""
        if self._is_alone:
            self._step_all([*params])
        else:
            super().step_now(params)

    def _step_all(self, params: list[torch.Tensor]) -> None:
        for change in self.changes:
            change(params)  # in the mode of backward, as gradients were made: inference mode, perhaps
        with _engine.outside_backward():
            self._step_params(params)
        for param in params:
            param.grad = None

    def replace(self, old: Attachment, new: Attachment) -> None:
        """Has another parameter in the place of one."""
        super().replace(old, new)
        self._places[id(new.param)] = self._places.pop(id(old.param), [])
        self._groups = [[*group["params"]] for group in self.optimizer.param_groups]
        self._params = [new.param if param is old.param else param for param in self._params]

    def step(self, attachments: Sequence[Attachment]) -> None:
        """Steps those of the given parameters that the optimizer has, by one call."""
        self._step_params([attachment.param for attachment in attachments if self in attachment.optimizers])

    def _step_params(self, params: list[torch.Tensor]) -> None:
        if not params or self.skips:
            return
        if self._stepping_thread == threading.get_ident():
            msg = (
                f"A backward inside a step of {type(self.optimizer).__name__} reaches parameters of the same "
                f"optimizer, which cannot step them meanwhile. Run it after the step."
            )
            raise RuntimeError(msg)
        with self._stepping:
            self._stepping_thread = threading.get_ident()
            try:
                if len(params) == len(self._places):
                    self.optimizer.step()
                else:
                    self._step_some(params)
            finally:
                self._stepping_thread = 0

    def _step_some(self, params: list[torch.Tensor]) -> None:
        chosen: dict[int, list[int]] = {}
        for param in params:
            for number, index in self._places[id(param)]:
                chosen.setdefault(number, []).append(index)
        groups = self.optimizer.param_groups
        every_group = [*groups]
        every_param = {number: every_group[number]["params"] for number in chosen}
        try:
            for number, indices in chosen.items():
                every_group[number]["params"] = [every_param[number][index] for index in sorted(indices)]
            groups[:] = [every_group[number] for number in sorted(chosen)]
            self.optimizer.step()
        finally:
            for number, listed in every_param.items():
                every_group[number]["params"] = listed
            groups[:] = every_group


def _same_objects(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def expect_handed_over(optimizer: Optimizer) -> HandedOver:
    """What hands this optimizer over.

    Raises:
        ValueError: Nothing does.
    """
    for param in listed_params(optimizer):
        attachment = attachment_of(param)
        for assignment in () if attachment is None else attachment.optimizers:
            if isinstance(assignment, HandedOver) and assignment.optimizer is optimizer:
                return assignment
    msg = (
        f"This {type(optimizer).__name__} does not step inside backward. Hand it over before: "
        f"inbackward.step_in_backward(optimizer)."
    )
    raise ValueError(msg)
