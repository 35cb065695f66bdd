"""Gradients that wait in one backward pass for one call that steps their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward import _engine
from inbackward._streams import gather, stream_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from inbackward._protocols import Assigned

_NO_TASK = -2


class Gate:
    """What the hook of a parameter looks at first. For most gradients, that is all it does.

    Python's garbage collector does not see through hooks, so a gate refers to something only while a pass runs.

    Attributes:
        task: The engine's number of the pass in which a gradient needs nothing but to be accepted.
        accept: What takes the parameter then.
    """

    __slots__ = ("accept", "task")

    def __init__(self) -> None:
        self.task = _NO_TASK
        self.accept: Callable[[torch.Tensor], object] = id

    def open(self, task: int, accept: Callable[[torch.Tensor], object]) -> None:
        """Has gradients of a pass accepted without further checks."""
        self.accept = accept
        self.task = task

    def close(self) -> None:
        """Has no gradient accepted."""
        self.task = _NO_TASK
        self.accept = id


class Bucket:
    """The parameters of one assignment that one pass has reached.

    Attributes:
        run: The pass.
        task: The engine's number of it; none once a nested pass is over.
        limit: How many bytes of gradients may wait.
        waiting: The parameters whose gradients wait.
        put_off: Those that are stepped at the end of the pass, by id.
        stepped: The ids of those that were stepped.
        held: The ids of those of them that held a gradient again before others ended the pass; None if nobody looked.
    """

    __slots__ = ("_assignment", "_bytes", "_streams", "held", "limit", "put_off", "run", "stepped", "task", "waiting")

    def __init__(self, run: _engine.Pass, task: int, assignment: Assigned) -> None:
        self.run = run
        self.task = task
        self.limit = assignment.bucket_bytes
        self.waiting: list[torch.Tensor] = []
        self.put_off: dict[int, torch.Tensor] = {}
        self.stepped: set[int] = set()
        self.held: set[int] | None = None
        self._assignment = assignment
        self._bytes = 0
        self._streams: list[torch.Stream] = []  # on which gradients that wait have become complete, with several ranks

    def accept(self, param: torch.Tensor) -> None:
        """Has a parameter wait whose gradient is there, or steps it if the gradient is too large for that.

        If this gradient and those that wait are more than the limit, those are stepped. Of this one, not all hooks
        of the user have run yet.

        Raises:
            RuntimeError: The parameter was already stepped in this pass.
        """
        if id(param) in self.stepped:
            self._assignment.refuse_second_part(param)
        size = nbytes(param)
        if self._bytes + size > self.limit:
            if self.waiting:
                self._step_what_waits()
            if size > self.limit:
                self._assignment.step_after_hooks(param, self)
                return
        self._bytes += size
        self.waiting.append(param)
        if self.run.is_distributed and (stream := stream_of(param.grad)) is not None:
            self._streams.append(stream)

    @_engine.run_eagerly
    def _step_what_waits(self) -> None:
        waiting, self.waiting, self._bytes = self.waiting, [], 0
        now = []
        for param in {id(each): each for each in waiting}.values():
            # What shares its memory may still be read in this pass: it is stepped at the end.
            if self._assignment.may_be_read(param):
                self.put_off[id(param)] = param
            else:
                now.append(param)
        self.stepped.update(map(id, now))
        if self._streams:
            gather([param.grad for param in now], self._streams)
            self._streams = []
        self._assignment.step_now(now)

    def knows(self, param: torch.Tensor) -> bool:
        """Whether the pass has reached the parameter."""
        return id(param) in self.stepped or id(param) in self.put_off or any(each is param for each in self.waiting)

    @property
    def not_stepped(self) -> list[torch.Tensor]:
        """The parameters that the pass has reached and not stepped."""
        return [*{id(param): param for param in (*self.waiting, *self.put_off.values())}.values()]

    def move_to(self, run: _engine.Pass, waiting: _engine.Waiting | None) -> Bucket:
        """Goes on in the pass that this one was nested in, together with what waits there."""
        self.run = run
        self.task = _NO_TASK
        if isinstance(waiting, Bucket):
            self.waiting = [*waiting.waiting, *self.waiting]
            self.put_off = {**waiting.put_off, **self.put_off}
            self.stepped |= waiting.stepped
            self._bytes += waiting._bytes  # noqa: SLF001 -- of this class
            self._streams += waiting._streams  # noqa: SLF001
            waiting.drop()
        self._assignment.gate.close()
        return self

    def drop(self) -> None:
        """Forgets everything: backward has raised, or is over."""
        self.task = _NO_TASK
        self.waiting = []
        self.put_off = {}
        self.stepped = set()
        self._assignment.leave(self)


def nbytes(param: torch.Tensor) -> int:
    """The bytes of a dense gradient of the parameter."""
    try:
        return param.nbytes
    except RuntimeError:  # sparse
        return param.numel() * param.element_size()
