"""The parameters of one call that attaches.

At the end of a pass that has reached any of the parameters, each that still holds a gradient is stepped: as `step()` of
one optimizer over them all would. These are the parameters that waited, or whose step was put off, and those whose
gradient is from before.
"""

from __future__ import annotations

import itertools
import weakref
from contextlib import ExitStack
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn

from inbackward import _engine
from inbackward._attachment import Attachment, attachment_of
from inbackward._bucket import Bucket, Gate
from inbackward._stale_graph import explain_stale_graph
from inbackward._step import step_together, twice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

_numbers = itertools.count()


class Assignment:
    """The parameters of one call of `apply_optimizer_in_backward`, each with an optimizer of its own.

    Attributes:
        number: Assignments step in the order of their numbers.
        steps_each_alone: Whether each parameter has an optimizer of its own.
        hooked: Whether they step inside backward; the others do where one that does has the parameter too.
        bucket_bytes: How many bytes of gradients may wait for one call that steps their parameters.
        gate: What the parameters' hooks look at first.
        bucket: What the last pass has reached; None before the first, and after each.
        accumulating: How many `accumulate` contexts are open.
        intercept: What takes the parameters' gradients, in the place of steps.
        transform: What unscales and clips gradients before they are stepped, in `inbackward.backward`.
    """

    steps_each_alone = True

    def __init__(self, *, hooked: bool, bucket_bytes: int = 0) -> None:
        self.number = next(_numbers)
        self.hooked = hooked
        self.bucket_bytes = bucket_bytes
        self.gate = Gate()
        self.bucket: Bucket | None = None
        self.accumulating = 0
        self.intercept: Callable[[Attachment], None] | None = None
        self.transform: Callable[[list[torch.Tensor]], object] | None = None
        self._attachments: dict[int, weakref.ref[Attachment]] = {}  # by id
        self._open: tuple[Bucket, ...] = ()  # of every pass that runs, several in nested ones and in threads

    @property
    def attachments(self) -> list[Attachment]:
        """What the call has attached, as far as it still is."""
        found = [reference() for reference in self._attachments.values()]
        return [attachment for attachment in found if attachment is not None]

    @property
    def changes(self) -> tuple[Callable[[list[torch.Tensor]], object], ...]:
        """What changes gradients before they are stepped."""
        return ()

    def attach(self, optimizers: Iterable[tuple[torch.Tensor, torch.optim.Optimizer]]) -> None:
        """Attaches an optimizer to each of some parameters, or to none of them where one cannot be hooked."""
        with ExitStack() as undo:
            for param, optimizer in optimizers:
                attachment = attachment_of(param) or Attachment(param)
                undo.callback(attachment.remove, self)
                self._attachments[id(attachment)] = weakref.ref(attachment)
                attachment.add(self, optimizer)
            undo.pop_all()

    def replace(self, old: Attachment, new: Attachment) -> None:
        """Has another attachment in the place of one."""
        self._attachments = {
            (id(new) if key == id(old) else key): weakref.ref(new) if key == id(old) else reference
            for key, reference in self._attachments.items()
        }

    def forget(self, attachment: Attachment) -> None:
        """Forgets a parameter that is detached."""
        self._attachments.pop(id(attachment), None)

    def follow_edits(self) -> None:
        """Follows what was changed by hand; a pass begins."""

    def note_others(self) -> None:
        """Called when the optimizers of a parameter have changed, of this assignment or of others."""

    def join(self, run: _engine.Pass) -> Bucket:
        """Takes part in a pass, which has reached one of the parameters."""
        task = _engine.current_task()
        bucket = self.bucket_in(run)
        if bucket is None:
            bucket = run.waiting[self] = Bucket(run, task, self)
            self._open = (*self._open, bucket)
        bucket.task = task
        self.bucket = bucket
        if self.bucket_bytes and not run.is_distributed and len(self._open) == 1:
            self.gate.open(task, bucket.accept)
        else:
            self.gate.close()
        return bucket

    def bucket_in(self, run: _engine.Pass) -> Bucket | None:
        """What a pass has reached; None if it has not come by here."""
        bucket = run.waiting.get(self)
        return bucket if isinstance(bucket, Bucket) else None

    def leave(self, bucket: Bucket) -> None:
        """Called when a pass is over, or goes on in another bucket."""
        self._open = tuple(each for each in self._open if each is not bucket)
        if self.bucket is bucket:
            self.bucket = None
        self.gate.close()

    def is_claimed_beside(self, bucket: Bucket | None, param: torch.Tensor) -> bool:
        """Whether another pass that runs, of another thread or around this one, has reached the parameter."""
        others = self._open if bucket is None else [each for each in self._open if each is not bucket]
        return any(each.knows(param) for each in others)

    def may_be_read(self, param: torch.Tensor) -> bool:
        """Whether the running graph may still read the parameter."""
        attachment = attachment_of(param)
        return not (attachment is not None and attachment.is_gathered) and _engine.shares_memory(param)

    def refuse_second_part(self, param: torch.Tensor) -> NoReturn:
        """Refuses a part of a gradient that comes after the parameter was stepped.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            twice(param, [] if (found := attachment_of(param)) is None else [*found.optimizers.values()])
        )

    def step_after_hooks(self, param: torch.Tensor, bucket: Bucket) -> None:
        """Steps a parameter as soon as all hooks of the user have seen its gradient."""
        attachment = attachment_of(param)
        if attachment is not None:
            attachment.step_after_hooks(bucket)

    def step_now(self, params: Iterable[torch.Tensor]) -> None:
        """Steps parameters of this assignment."""
        found = [attachment_of(param) for param in params]
        step_together([attachment for attachment in found if attachment is not None])

    def change(self, attachments: Sequence[Attachment]) -> None:
        """Changes the gradients of those of the given parameters that this assignment has."""
        params = [attachment.param for attachment in attachments if self in attachment.optimizers]
        for change in self.changes:
            change(params)

    def step(self, attachments: Sequence[Attachment]) -> None:
        """Steps those of the given parameters that this assignment has, in the order in which it was given them."""
        if len(attachments) > 1:
            given = set(map(id, attachments))
            attachments = [attachment for attachment in self.attachments if id(attachment) in given]
        for attachment in attachments:
            optimizer = attachment.optimizers.get(self)
            if optimizer is not None:
                optimizer.step()

    @staticmethod
    @_engine.run_eagerly
    def finish(run: _engine.Pass) -> None:
        """Steps every parameter of the assignments that a pass has reached, as far as they hold a gradient.

        As in the standard loop, an assignment steps all of its parameters before the next one does: parameters of two
        may have one memory.
        """
        joined = sorted(run.joined, key=attrgetter("number"))
        for assignment in joined:
            assignment.free_again(run)
        holding = {assignment: params for assignment in joined if (params := assignment.holding_in(run))}
        if all(assignment.is_alone for assignment in holding) or len(holding) == 1:
            for assignment, params in holding.items():
                assignment.step_at_end(params, run)
        else:
            due = (assignment.due_of(params, run) for assignment, params in holding.items())
            step_together([*dict.fromkeys(chain.from_iterable(due))])
        if _engine.keeps_graph():
            early = (assignment.stepped_in(run) for assignment in joined)
            explain_stale_graph(chain(chain.from_iterable(holding.values()), chain.from_iterable(early)))

    @property
    def is_alone(self) -> bool:
        """Whether it is known that no other assignment has any of the parameters."""
        return False

    @property
    def params(self) -> list[torch.Tensor]:
        """The parameters, once each."""
        return [attachment.param for attachment in self.attachments]

    def holding_in(self, run: _engine.Pass) -> list[torch.Tensor]:
        """The parameters that hold a gradient at the end of a pass; beside other passes, those that it has reached."""
        bucket = self.bucket_in(run)
        # To read a gradient that another thread accumulates meanwhile can crash.
        params = self.params if bucket is None or len(self._open) == 1 else bucket.not_stepped
        return [param for param in params if param.grad is not None]

    def stepped_in(self, run: _engine.Pass) -> list[torch.Tensor]:
        """The parameters that the pass has stepped before its end."""
        bucket = self.bucket_in(run)
        return [] if bucket is None else [param for param in self.params if id(param) in bucket.stepped]

    def note_gradients(self, run: _engine.Pass) -> None:
        """Takes note of the stepped parameters that hold a gradient before others end the pass."""
        if bucket := self.bucket_in(run):
            bucket.held = {id(param) for param in self.stepped_in(run) if param.grad is not None}

    def free_again(self, run: _engine.Pass) -> None:
        """Frees the gradients of parameters that were stepped before the end of the pass.

        A plain DistributedDataParallel of one rank puts gradients in place at the end of a pass. A gradient that was
        there before is somebody else's.
        """
        if (bucket := self.bucket_in(run)) is None or bucket.held is None:
            return
        for param in self.stepped_in(run):
            if id(param) not in bucket.held:
                param.grad = None

    def due_of(self, params: list[torch.Tensor], run: _engine.Pass) -> list[Attachment]:
        """What is attached to those of the parameters that are to be stepped at the end of the pass."""
        found = map(attachment_of, params)
        return [each for each in found if each and self in each.optimizers and each.may_step_at_end_of(run)]

    def step_at_end(self, params: list[torch.Tensor], run: _engine.Pass) -> None:
        """Steps parameters at the end of a pass, with all of their optimizers."""
        step_together(self.due_of(params, run))
