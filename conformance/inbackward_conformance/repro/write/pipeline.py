"""Writes the events of `plan.events.pipeline`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.CutIntoStages)
def _(event: events.CutIntoStages, script: Script) -> None:
    assert script.plan.ranks
    ranks = script.plan.ranks.pipeline
    number = event.stages_per_rank * ranks
    script.make_mesh()
    script.add(f'own = range(mesh.get_local_rank("pipeline"), {number}, {ranks})')
    with script.block(f"for index in {{*range({number})}}.difference(own):"):
        script.add('delattr(model, f"stage{index}")')
    script.add("stages = []")
    with script.block("for index in own:"):
        script.add('part, group = model.get_submodule(f"stage{index}"), mesh.get_group("pipeline")')
        stage = f"part, index, {number}, torch.device({script.device!r}), group=group"
        script.add(f"stages.append(pipelining.PipelineStage({stage}))")
    scheduled = "stages[0]" if event.takes_one_stage else "stages"
    loss = "nn.functional.mse_loss" if event.scale_grads else 'partial(nn.functional.mse_loss, reduction="sum")'
    options = f"loss_fn={loss}{', scale_grads=False' * (not event.scale_grads)}"
    script.add(f"schedule = pipelining.{event.schedule}({scheduled}, {event.micro_batches}, {options})")


@write.register(events.RunPipeline)
def _(event: events.RunPipeline, script: Script) -> None:
    script.draw_batch()
    schedule = "schedule.step(*[batch] * stages[0].is_first, target=batch if stages[-1].is_last else None)"
    between = []
    if event.summed:
        between = [
            "for name, param in model.named_parameters():",
            f"    if name in {expression(event.summed)}:",
            '        dist.all_reduce(param.grad, group=mesh.get_group("pipeline"))',
        ]
    loop = script.loop
    script.add(*(loop.accumulate_pipeline if event.accumulated else loop.run_pipeline)(schedule, between))
