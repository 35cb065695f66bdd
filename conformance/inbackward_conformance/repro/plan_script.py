"""The script of a plan that fails: the model, the standard loop, the implementation's loop, and what differs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from inbackward_conformance.events import Attach, AttachMore, Detach, FullyShard
from inbackward_conformance.outcome import Refusal
from inbackward_conformance.repro import loops
from inbackward_conformance.repro.comparison import STATES_OF, Comparison, let_refusals_through
from inbackward_conformance.repro.failure import Kind
from inbackward_conformance.repro.file import script
from inbackward_conformance.repro.inline import Inlined
from inbackward_conformance.repro.script import Script
from inbackward_conformance.run import Run, model_class
from inbackward_conformance.standard_loop import StandardLoop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inbackward_conformance.events import Event
    from inbackward_conformance.plan import Plan
    from inbackward_conformance.repro.failure import Failure
    from inbackward_conformance.repro.loops import Loop
    from inbackward_conformance.repro.spelling import Spelling

ON_RANKS = """
def main(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
"""

SPAWN = """
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(main, (folder,), nprocs=WORLD_SIZE)
"""

def plan_script(failure: Failure, spelling: Spelling) -> str:
    """Return the script of a failure whose plan is known."""
    plan, ranks = failure.plan, failure.plan and failure.plan.ranks
    assert plan
    parts = _Parts(failure, spelling, plan)
    standard = parts.training("standard_loop", loops.StandardLoop(spelling, alone=_alone(plan)))
    in_backward = parts.training("in_backward", loops.InBackward(spelling))
    compare = parts.comparison()
    if ranks:
        main = ON_RANKS.strip() + "\n" + textwrap.indent(compare, "    ")
        tail = [main, SPAWN.strip()]
    else:
        tail = [compare]
    head = [f"WORLD_SIZE = {ranks.world_size}"] if ranks else []
    states_of = STATES_OF.strip() if failure.kind is Kind.STATES else ""
    definitions = parts.inlined.definitions
    imports = [*parts.inlined.imports, *spelling.imports]
    return script(failure, imports, [*head, *definitions, parts.build, standard, in_backward, states_of, *tail])


class _Parts:
    def __init__(self, failure: Failure, spelling: Spelling, plan: Plan) -> None:
        self._failure = failure
        self._plan = plan
        self.inlined = Inlined()
        self._model = model_class(plan)
        self.inlined.add(self._model)
        self._events = _up_to(plan, failure.event)
        self._rank = "rank" if plan.ranks else ""
        self.build = self._building()

    def training(self, name: str, loop: Loop) -> str:
        """Return the function that trains a model by one of the loops, and returns what is compared."""
        plan, failure = self._plan, self._failure
        written = Script(plan, loop, failure.device, Run(plan, StandardLoop(lambda *_: None), "cpu"))
        before, attach, after = (written.write(events) for events in self._events)
        if self._may_refuse(loop, at_attachment=True):
            attach = let_refusals_through(attach)
        training = "\n".join(part for part in (before, attach, after) if part)
        for found in sorted(written.needs, key=lambda found: str(found.__name__)):
            self.inlined.add(found)
        result = f"model, {loop.optimizers()}" if failure.kind is Kind.STATES else "model"
        lines = [
            f"torch.manual_seed({plan.seed})",
            f"model = {'build()' if self.build else self._model.__name__ + '()'}",
            *[self._batches()] * ("next(batches)" in training),
            training,
            f"return {result}",
        ]
        return f"def {name}({self._rank}):\n" + textwrap.indent("\n".join(lines), "    ")

    def _batches(self) -> str:
        """Return the line that draws batches, as `Run.next_batch` does."""
        first = ("1_000_000 * rank + " if self._rank else "") + str(1000 * self._plan.seed + 1)
        device = "" if self._failure.device == "cpu" else f".to({self._failure.device!r})"
        batch = f"model.batch(torch.Generator().manual_seed(seed))[0]{device}"
        return f"batches = ({batch} for seed in itertools.count({first}))"

    def comparison(self) -> str:
        """Return what calls both loops, and asserts that they are equal."""
        sharded = any(isinstance(event, FullyShard) for event in (*self._plan.before, *self._plan.events))
        nested = any(param.is_nested for param in self._model().parameters())
        return Comparison(
            self._failure.kind,
            self._rank,
            self._plan.ranks.tolerance if self._plan.ranks else 0.0,
            ".to_local()" if sharded else ".values()" if nested else "",
            self._may_refuse(None, at_attachment=False),
        ).source()

    def _may_refuse(self, loop: Loop | None, *, at_attachment: bool) -> bool:
        """Whether a refusal, at attachment or later, is to be let through: it is not what went wrong here."""
        latest = self._failure.requirement.may_refuse
        raised = self._failure.kind is Kind.RAISED_AND_THE_STANDARD_LOOP_HAS_NOT
        if isinstance(loop, loops.StandardLoop) or latest is None:
            return False
        if raised:
            return at_attachment and self._failure.event != len(self._plan.before)
        return at_attachment == (latest is Refusal.AT_ATTACHMENT)

    def _building(self) -> str:
        """Return the function that builds the model; empty where its class does all that."""
        plan = self._plan
        lines = []
        if plan.dtype:
            lines.append(f"model.to(torch.{plan.dtype})")
        if self._failure.device != "cpu":
            lines.append(f"model.to({self._failure.device!r})")
        lines += [f"{Script.attribute(name)} = {Script.attribute(source)}" for name, source in plan.shared]
        lines += [f"{Script.attribute(name)}.requires_grad_(False)" for name in plan.frozen]
        anew = any("Load(" in repr(event) and "rebuild=False" not in repr(event) for event in plan.events)
        if not lines and not anew:
            return ""
        lines = [f"model = {self._model.__name__}()", *lines, "return model"]
        return "def build():\n" + textwrap.indent("\n".join(lines), "    ")


def _up_to(plan: Plan, last: int | None) -> tuple[Sequence[Event], Sequence[Event], Sequence[Event]]:
    """Return what happens before attachment, attachment, and what happens after it, up to the last event that counts."""
    count = len(plan.before) + 1 + len(plan.events) if last is None else last + 1
    attach = (Attach(),)[: max(count - len(plan.before), 0)]
    return plan.before[:count], attach, plan.events[: max(count - len(plan.before) - 1, 0)]


def _alone(plan: Plan) -> bool:
    """Whether there is never more than one optimizer in the standard loop."""
    more = any(isinstance(event, AttachMore | Detach) for event in (*plan.before, *plan.events))
    return len(plan.assignments) == 1 and plan.assignments[0].hook and not more
