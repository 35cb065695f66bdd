"""What is attached to a parameter, and when it steps.

An attachment must die with its model, be found by its parameter, and end up in no saved file and no copy. So a tensor
hook of the parameter owns it: Python's garbage collector sees through those, unlike through post-accumulate-grad
hooks, and neither `torch.save` nor `deepcopy` follows them. Whatever else refers to an attachment does so weakly.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from inbackward import _engine
from inbackward._bucket import Gate
from inbackward._callers import may_run_pipelines, refuse_caller, refuse_outside_backward, refuse_pipeline
from inbackward._hooks import Hooks
from inbackward._names import name_of
from inbackward._ranks import TURNS_OF_DDP, is_sharded, reduction_of, refuse_unaccounted
from inbackward._step import step_together
from inbackward._streams import keep_for_current_stream, wait_for_offload
from inbackward._torch_calls import note_calls

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.optim import Optimizer

    from inbackward._bucket import Bucket
    from inbackward._protocols import Assigned

# By id of the parameter. An attachment holds its parameter, so an id that is found is never that of a newer tensor.
_attachments: weakref.WeakValueDictionary[int, Attachment] = weakref.WeakValueDictionary()


def attachment_of(param: torch.Tensor) -> Attachment | None:
    """What is attached to the parameter; None if nothing is."""
    return _attachments.get(id(param))


def _hooks_of(param: torch.Tensor) -> Hooks | None:
    attachment = attachment_of(param)
    return None if attachment is None else attachment.hooks


class Attachment:
    """The optimizers of one parameter, in the order in which they were attached and step.

    Attributes:
        param: The parameter.
        optimizers: Its optimizers, by the call that attached each, in order.
        hooks: The parameter's hooks.
        is_local: Whether the user has said that this rank trains the parameter on its own gradient.
        is_gathered: Whether FSDP2 has gathered the parameter for the graph, which never reads this one, a shard.
    """

    __torch_unserializable__ = True  # as torch.utils.hooks.unserializable_hook marks a function: no warning on saving
    __slots__ = (
        "__weakref__",
        "_assignments",
        "_first",
        "_is_due",
        "_only",
        "hooks",
        "is_gathered",
        "is_local",
        "optimizers",
        "param",
    )

    def __init__(self, param: torch.Tensor) -> None:
        self.param = param
        self.optimizers: dict[Assigned, Optimizer] = {}
        self.is_local = False
        self.is_gathered = False
        self._assignments: tuple[Assigned, ...] = ()  # those that step inside backward; gradients wait for the first
        self._first: Assigned | None = None  # it, if there is no other
        self._only: Optimizer | None = None  # the only optimizer, if it has no other parameter
        self._is_due = False
        self.hooks = Hooks(param, self)
        note_calls(_hooks_of)
        _attachments[id(param)] = self

    def __call__(self, grad: torch.Tensor) -> None:
        """Refuses the gradient that a zero-bubble schedule takes for itself; the hook is there to own the attachment.

        Raises:
            RuntimeError: A pipeline schedule runs, and gradients do not add up.
        """
        if may_run_pipelines() and not all(assignment.accumulating for assignment in self._assignments):
            refuse_pipeline(self)

    @property
    def hooked(self) -> bool:
        """Whether the optimizers step inside backward."""
        return self.hooks.trigger is not None

    @property
    def is_reduced(self) -> bool:
        """Whether a reduction over several ranks says when the parameter steps."""
        reduction = reduction_of(self.param)
        return not self.is_local and reduction is not None and not reduction.is_local(self.param)

    @property
    def is_sharded(self) -> bool:
        """Whether the parameter is a DTensor."""
        return is_sharded(self.param)

    @property
    def is_accumulating(self) -> bool:
        """Whether gradients add up, and nothing is to be stepped.

        Raises:
            RuntimeError: That is so for one of the parameter's optimizers, and not for another.
        """
        waits = {assignment.accumulating > 0 for assignment in self._assignments}
        if len(waits) > 1:
            name = name_of(self.param, self.optimizers.values())
            msg = (
                f"Several optimizers have {name}, of which one accumulates and another steps. It was not stepped. "
                f"Accumulate with all of them: with first.accumulate(), second.accumulate(): ..."
            )
            raise RuntimeError(msg)
        return waits == {True}

    def add(self, assignment: Assigned, optimizer: Optimizer) -> None:
        """Attaches one more optimizer, which steps after the others."""
        self.optimizers[assignment] = optimizer
        by_number = sorted(self.optimizers.items(), key=lambda item: item[0].number)
        self.optimizers = dict(by_number)  # a parameter group may have been added to an earlier one
        self._follow_assignments()

    def remove(self, assignment: Assigned) -> None:
        """Takes an optimizer off; the parameter is an ordinary one again without any."""
        self.optimizers.pop(assignment, None)
        assignment.forget(self)
        if self.optimizers:
            self._follow_assignments()
        else:
            self.release()

    def _follow_assignments(self) -> None:
        for assignment in self.optimizers:
            assignment.note_others()
        self._assignments = tuple(assignment for assignment in self.optimizers if assignment.hooked)
        alone = [optimizer for assignment, optimizer in self.optimizers.items() if assignment.steps_each_alone]
        self._only = alone[0] if len(self.optimizers) == len(alone) == 1 else None
        self._first = self._assignments[0] if len(self._assignments) == 1 else None
        if self._assignments:
            # Of several optimizers' gates none says everything.
            self.hooks.listen(Gate() if self._first is None else self._first.gate)
        else:
            self.hooks.listen_no_more()

    def release(self) -> None:
        """Makes the parameter an ordinary one again."""
        self.hooks.remove()
        self._assignments = ()
        for assignment in self.optimizers:
            assignment.forget(self)
        _attachments.pop(id(self.param), None)

    def move_to(self, param: torch.Tensor) -> None:
        """Gives what is attached here to a parameter that has taken this one's place."""
        moved = Attachment(param)
        moved.is_local = self.is_local
        for assignment, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["params"] = [param if each is self.param else each for each in group["params"]]
            assignment.replace(self, moved)
            moved.add(assignment, optimizer)
        self.release()

    def fire(self) -> None:
        """Has the parameter stepped, its gradient being accumulated, once all hooks of the user have run.

        Raises:
            RuntimeError: A part of the gradient comes after the parameter was stepped with another, in one backward,
                or it comes under compiled autograd; or there are several ranks, and nobody has answered for bringing
                their gradients together.
        """
        first = self._assignments[0]
        bucket = first.bucket
        if (
            bucket is None
            or bucket.task != _engine.current_task()
            or first is not self._first
            or bucket.run.is_distributed
        ):
            bucket = self._begin()
            if bucket is None:
                return
            first = self._assignments[0]
            if first.is_claimed_beside(bucket, self.param):
                first.refuse_second_part(self.param)
        if bucket.limit:
            bucket.accept(self.param)
        elif id(self.param) in bucket.stepped:
            first.refuse_second_part(self.param)
        else:
            self.step_after_hooks(bucket)

    def _begin(self) -> Bucket | None:
        """Gives the bucket of the running pass, prepared for this parameter; None if nothing is to be stepped now."""
        if self.is_accumulating:
            return None
        if intercept := next((each.intercept for each in self._assignments if each.intercept), None):
            intercept(self)
            return None
        if not _engine.in_backward():
            refuse_outside_backward(self)
        self.is_gathered = self._is_called_by_fsdp()
        if not self.is_gathered:
            _engine.current_node()
        run = _engine.current_pass()
        self._refuse_callers(run)
        reduction = None if self.is_local or self.is_gathered else reduction_of(self.param)
        if reduction is not None and not reduction.is_local(self.param):
            reduction.gradient_is_accumulated(self.param)
            return None
        if reduction is None and not self.is_local:
            refuse_unaccounted(self.param, self.optimizers.values())
        if self.is_gathered:
            wait_for_offload(self.param)
            keep_for_current_stream(self.param.grad)
            run.turns_to_wait = max(run.turns_to_wait, 1)  # FSDP2 has its own end of backward
        elif run.is_distributed:
            # With a single rank, there may be a plain DistributedDataParallel without a word.
            run.turns_to_wait = TURNS_OF_DDP
            for assignment in self._assignments:
                run.before_others[assignment.note_gradients] = None
        return self._join(run)

    def _refuse_callers(self, run: _engine.Pass) -> None:
        for assignment in self._assignments:
            if assignment not in run.callers_known:
                refuse_caller(self, unscales=assignment.transform is not None)
                run.callers_known.add(assignment)

    def _join(self, run: _engine.Pass) -> Bucket | None:
        for assignment in self._assignments:
            if assignment not in run.joined:
                assignment.follow_edits()
                run.joined[assignment] = None
                run.at_end[assignment.finish] = None
        # No optimizer is left where all groups have dropped the parameter.
        return self._assignments[0].join(run) if self._assignments else None

    def _is_called_by_fsdp(self) -> bool:
        return self.is_sharded and not _engine.is_accumulating()

    def step_after_hooks(self, bucket: Bucket) -> None:
        """Steps the parameter once all hooks of the user have seen its gradient, or puts it off."""
        is_last = _engine.is_last_hook(self.param, self.hooks.trigger)
        if self.is_gathered:
            if is_last:
                self._step(bucket)
            else:
                bucket.put_off[id(self.param)] = self.param
                bucket.run.at_end[self._hook_last] = None
        elif is_last and not _engine.may_have_hooks(_engine.current_node()):
            self._step_unless_in_use(bucket)
        else:
            bucket.put_off[id(self.param)] = self.param
            self.after_hooks(lambda: self._step_unless_in_use(bucket))

    def after_hooks(self, call: Callable[[], None]) -> None:
        """Calls something once all hooks of the user have seen the gradient that is being accumulated."""
        self._is_due = True

        # Hooks of the node run after all post-accumulate-grad hooks. One that stayed there would be lost with the
        # node, which torch replaces when the dtype changes.
        @_engine.run_eagerly
        def all_hooks_have_run(*_: object) -> None:
            handle.remove()
            # Not due: an earlier pass over this graph raised before it came here, and left its hook behind.
            if self._is_due:
                self._is_due = False
                call()

        handle = _engine.current_node().register_hook(all_hooks_have_run)

    def _step_unless_in_use(self, bucket: Bucket) -> None:
        # Something later in this pass may still read the parameter: it is stepped at the end.
        if _engine.shares_memory(self.param):
            bucket.put_off[id(self.param)] = self.param
        else:
            self._step(bucket)

    def _step(self, bucket: Bucket) -> None:
        if bucket.put_off:
            bucket.put_off.pop(id(self.param), None)
        bucket.stepped.add(id(self.param))
        if self._only is None:
            step_together([self])
        elif self.param.grad is not None:  # what `step_together` comes to for one optimizer, in a third of the time
            with _engine.outside_backward():
                self._only.step()
            self.param.grad = None

    def _hook_last(self, _: _engine.Pass) -> None:
        self.hooks.listen_last()

    def may_step_at_end_of(self, run: _engine.Pass) -> bool:
        """Whether the parameter is stepped at the end of a pass, should it hold a gradient."""
        if not self._assignments or self._assignments[0].is_claimed_beside(
            self._assignments[0].bucket_in(run), self.param
        ):
            return False  # in the second case, another pass is to step it
        if run.is_distributed and self.is_reduced:
            return False
        return len(self._assignments) == 1 or not self.is_accumulating
