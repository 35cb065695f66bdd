"""What the requirements of chapter pipeline take for granted about `torch.distributed.pipelining`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.pipelining import (
    PipelineStage,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from inbackward_conformance.catalogue.models import Stages
from inbackward_conformance.ranks.stores import HashStore
from inbackward_conformance.training.trace import Raised

MICRO_BATCHES = 4


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def run(
    model: Stages,
    schedule: type[ScheduleInterleaved1F1B | ScheduleInterleavedZeroBubble],
    loss: Callable[..., Tensor] = nn.functional.mse_loss,
    **options: bool,
) -> None:
    modules = list(model.children())
    stages = [PipelineStage(each, index, len(modules), torch.device("cpu")) for index, each in enumerate(modules)]
    (batch,) = model.batch(torch.Generator().manual_seed(0))
    schedule(stages, MICRO_BATCHES, loss_fn=loss, **options).step(batch, target=batch)  # type: ignore[arg-type]


def gradients_of_the_whole(model: Stages) -> list[Tensor]:
    (batch,) = model.batch(torch.Generator().manual_seed(0))
    return list(torch.autograd.grad(nn.functional.mse_loss(model(batch), batch), list(model.parameters())))


@pytest.mark.parametrize("schedule", [ScheduleInterleaved1F1B, ScheduleInterleavedZeroBubble])
def test_gradients_are_those_of_the_whole_batch(
    schedule: type[ScheduleInterleaved1F1B | ScheduleInterleavedZeroBubble],
) -> None:
    model = Stages()
    run(model, schedule)
    for param, expected in zip(model.parameters(), gradients_of_the_whole(model), strict=True):
        torch.testing.assert_close(param.grad, expected)


def test_the_gradient_of_two_stages_on_one_rank_is_theirs_if_the_loss_is_a_sum() -> None:
    """Each stage divides it otherwise, the last one before all parts are there."""
    model = Stages()
    model.stage1[2].weight = model.stage0[0].weight  # type: ignore[index,union-attr]
    run(model, ScheduleInterleaved1F1B, lambda output, target: (output - target).square().sum(), scale_grads=False)
    (batch,) = model.batch(torch.Generator().manual_seed(0))
    for param, mean in zip(model.parameters(), gradients_of_the_whole(model), strict=True):
        torch.testing.assert_close(param.grad, mean * batch.numel())


def test_a_zero_bubble_schedule_calls_no_hook_of_later_stages() -> None:
    model = Stages()
    called = []
    for name, param in model.named_parameters():
        param.register_post_accumulate_grad_hook(lambda _, name=name: called.append(name))
    run(model, ScheduleInterleavedZeroBubble)
    assert {name.partition(".")[0] for name in called} == {"stage0"}


def refuse(_: Tensor) -> None:
    raise ValueError("not in a pipeline")


def stumble(grad: Tensor) -> None:
    grad.nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("hook", "text", "accidental"),
    [
        (refuse, "ValueError: not in a pipeline", False),
        (stumble, "AttributeError: 'Tensor' object has no attribute 'nothing'", True),
    ],
    ids=["refusal", "accident"],
)
def test_an_error_in_a_stage_is_told_as_it_was_raised(
    hook: Callable[[Tensor], None], text: str, accidental: bool
) -> None:
    """Torch raises a RuntimeError from it, which says that the stage has failed."""
    model = Stages(1)
    next(model.parameters()).register_hook(hook)
    schedule = ScheduleGPipe(PipelineStage(model, 0, 1, torch.device("cpu")), 2, loss_fn=nn.functional.mse_loss)
    with pytest.raises(RuntimeError) as raised:
        schedule.step(torch.ones(4, 4), target=torch.ones(4, 4))
    assert "Failed to run stage backward" in str(raised.value)
    observed = Raised.observe(raised.value, "event 1", attaching=0)
    assert (observed.text, observed.accidental) == (text, accidental)
