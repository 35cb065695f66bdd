"""The script of a plan that fails: the model, the standard loop, the implementation's loop, and what differs."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance.events import Attach, AttachMore, Detach, HookThenOptimizer
from inbackward_conformance.outcome import Outcome, Refusal
from inbackward_conformance.printable import expression
from inbackward_conformance.repro import loops
from inbackward_conformance.repro.comparison import Comparison, let_refusals_through
from inbackward_conformance.repro.failure import Kind
from inbackward_conformance.repro.file import script
from inbackward_conformance.repro.inline import Inlined
from inbackward_conformance.repro.script import Script
from inbackward_conformance.repro.spelling import Unspellable
from inbackward_conformance.run import model_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from inbackward_conformance.events import Event
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.repro.failure import Failure
    from inbackward_conformance.repro.spelling import Spelling

SECONDS_TO_HANG = 20

ON_RANKS = """
def main(rank, folder):
    dist.init_process_group("gloo", f"file://{{folder}}/store", timedelta(seconds=20), {world_size}, rank)
    {set_device}
{comparison}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (folder,), nprocs={world_size})
"""


def plan_script(failure: Failure, spelling: Spelling) -> str:
    """Return the script of a failure whose plan is known."""
    assert failure.plan
    return _PlanScript(failure, failure.plan, spelling).text()


class _PlanScript:
    def __init__(self, failure: Failure, plan: Plan, spelling: Spelling) -> None:
        self._failure = failure
        self._plan = plan
        self._spelling = spelling
        self._inlined = Inlined()
        self._inlined.add(model_class(plan))
        self._rank = "rank" if plan.ranks else ""
        self._raised = failure.kind is Kind.RAISED_AND_THE_STANDARD_LOOP_HAS_NOT
        self._comparison = Comparison(
            failure.kind,
            self._rank,
            plan.ranks.tolerance if plan.ranks else 0.0,
            may_refuse=self._may_refuse(at_attachment=False),
        )

    def text(self) -> str:
        """Return the file."""
        alone = _never_more_than_one(self._plan)
        made, *changes = self._building()
        built = "build()" if changes else made
        device = self._failure.device
        standard = Script(self._plan, loops.StandardLoop(self._spelling, alone=alone), built, device)
        in_backward = Script(self._plan, loops.InBackward(self._spelling), built, device)
        trainings = [self._training("standard_loop", standard), self._training("in_backward", in_backward)]
        for found in sorted(standard.needs, key=lambda found: str(found.__name__)):
            self._inlined.add(found)
        parts = [
            *self._inlined.definitions,
            self._function("build", "", [f"model = {made}", *changes, "return model"]) if changes else "",
            *trainings,
            self._tail(),
        ]
        return script(self._failure, [*self._inlined.imports, *self._spelling.imports], parts)

    def _building(self) -> list[str]:
        """Return an expression for the model, and what is changed in it then, as in `build_model`."""
        plan = self._plan
        return [
            f"{plan.model}({', '.join(map(expression, plan.arguments))})",
            *[f"model.to(torch.{plan.dtype})"] * bool(plan.dtype),
            *[f"model.to({self._failure.device!r})"] * (self._failure.device != "cpu"),
            *(f"{Script.attribute(name)} = {Script.attribute(source)}" for name, source in plan.shared),
            *(f"{Script.attribute(name)}.requires_grad_(False)" for name in plan.frozen),
        ]

    def _training(self, name: str, written: Script) -> str:
        """Return the function that trains a model by one of the loops, and returns what is compared."""
        before, attach, after = (written.write(events) for events in _up_to(self._plan, self._failure.event))
        if name == "in_backward" and self._may_refuse(at_attachment=True):
            attach = let_refusals_through(attach)
        trained = "\n".join(part for part in (before, attach, after) if part)
        returned = self._comparison.returned(written)
        lines = [
            f"torch.manual_seed({self._plan.seed})",
            f"model = {written.built}",
            *[self._batches()] * ("next(batches)" in trained),
            trained,
            *[f"return {returned}"] * bool(returned),
        ]
        return self._function(name, self._rank, lines)

    def _batches(self) -> str:
        """Return the line that draws batches, as `Run.next_batch` does."""
        first = ("1000000 * rank + " if self._rank else "") + str(1000 * self._plan.seed + 1)
        device = "" if self._failure.device == "cpu" else f".to({self._failure.device!r})"
        batch = _batch_of(model_class(self._plan), "torch.Generator().manual_seed(seed)")
        return f"batches = ({batch}{device} for seed in count({first}))"

    def _tail(self) -> str:
        """Return what calls both loops, and asserts that they are equal; several ranks do so side by side."""
        compared = self._comparison.source()
        if self._failure.outcome == Outcome.HANGS:
            compared = f"faulthandler.dump_traceback_later({SECONDS_TO_HANG}, exit=True)\n{compared}"
        if not self._plan.ranks:
            return compared
        size = self._plan.ranks.world_size
        set_device = "torch.cuda.set_device(rank % torch.cuda.device_count())" * (self._failure.device == "cuda")
        compared = textwrap.indent(compared, "    ")
        return ON_RANKS.format(world_size=size, set_device=set_device, comparison=compared).strip()

    def _may_refuse(self, *, at_attachment: bool) -> bool:
        """Whether a refusal, in attachment or anywhere, would pass, and is not what has failed here."""
        latest = self._failure.requirement.may_refuse
        if latest is None:
            return False
        if self._raised:
            return at_attachment and self._failure.event != len(self._plan.before)
        return at_attachment == (latest is Refusal.AT_ATTACHMENT)

    @staticmethod
    def _function(name: str, argument: str, lines: list[str]) -> str:
        return f"def {name}({argument}):\n" + textwrap.indent("\n".join(lines), "    ")


def _batch_of(model: type[nn.Module], generator: str) -> str:
    """Return the expression for a batch, which is the one thing that `batch` of a model returns."""
    function = ast.parse(textwrap.dedent(inspect.getsource(getattr(model, "batch")))).body[0]
    match function:
        case ast.FunctionDef(body=[*_, ast.Return(ast.Tuple([batch]))]):
            return re.sub(r"\bgenerator\b(?!=)", generator, ast.unparse(batch))
    raise Unspellable(f"{model.__name__}.batch does more than to return a tuple of one")


def _up_to(plan: Plan, last: int | None) -> tuple[Sequence[Event], Sequence[Event], Sequence[Event]]:
    """Return what happens before attachment, attachment, and what follows, up to the last event that counts."""
    if last is None:
        return plan.before, (Attach(),), plan.events
    attaching = len(plan.before)
    return plan.before[: last + 1], (Attach(),) * (last >= attaching), plan.events[: max(last - attaching, 0)]


def _never_more_than_one(plan: Plan) -> bool:
    """Whether the standard loop has one optimizer, from attachment to the end."""
    happening = (*plan.before, *plan.events)
    others = any(isinstance(event, AttachMore | Detach) for event in happening)
    behind_hooks = [event.assignment for event in happening if isinstance(event, HookThenOptimizer)]
    assigned = [*plan.assignments, *behind_hooks]
    return len(assigned) == 1 and assigned[0].hook and not others
