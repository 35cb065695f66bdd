"""What the tests of DDP run on each rank: the same training under `wrap_ddp` and by plain DDP, standard loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import inbackward

ADAM = {"lr": 0.01, "weight_decay": 0.1}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.spare, self.last = (
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 6),
            nn.Linear(6, 3),
        )

    def forward(self, x: torch.Tensor, *, spare: bool = True, checkpointed: bool = False) -> Any:
        hidden = self.norm(self.first(x).tanh())
        if spare:
            hidden = checkpoint(self.spare, hidden, use_reentrant=False) if checkpointed else self.spare(hidden)
        return self.last(hidden)


def batch(step: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(3, 4, generator=generator)


Run = Callable[[Any, int, int], None]


def plain(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank)).pow(2).sum().backward()


def spare_on_one_rank(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank), spare=step > 1 and rank == 0).pow(2).sum().backward()


def spare_now_and_then(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank), spare=step % 2 == 0).pow(2).sum().backward()


def never_spare(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank), spare=False).pow(2).sum().backward()


def accumulating(ddp: Any, step: int, rank: int) -> None:
    with ddp.no_sync():
        plain(ddp, step, rank)
    plain(ddp, step + 10, rank)


def spare_while_accumulating(ddp: Any, step: int, rank: int) -> None:
    with ddp.no_sync():
        spare_on_one_rank(ddp, step + 2, rank)
    never_spare(ddp, step, rank)


def checkpointed(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank), checkpointed=True).pow(2).sum().backward()


def reentrant(ddp: Any, step: int, rank: int) -> None:
    inputs = batch(step, rank).requires_grad_()
    checkpoint(ddp, inputs, use_reentrant=True).pow(2).sum().backward()


def retained(ddp: Any, step: int, rank: int) -> None:
    ddp(batch(step, rank)).pow(2).sum().backward(retain_graph=True)


def two_forwards(ddp: Any, step: int, rank: int) -> None:
    (ddp(batch(step, rank)).pow(2).sum() + ddp(batch(step + 50, rank)).sum()).backward()


def nothing(_: Net) -> None:
    pass


def share(model: Net) -> None:
    model.spare.weight = nn.Parameter(model.spare.weight.detach().clone())
    model.last.bias = nn.Parameter(torch.ones(3))
    model.add_module("alias", model.spare)


def freeze(model: Net) -> None:
    model.norm.requires_grad_(requires_grad=False)


def ignore(model: Net) -> None:
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ["spare.weight"])


def sgd(model: nn.Module) -> list[Any]:
    return [(torch.optim.SGD, list(model.parameters()), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})]


def adam(model: nn.Module) -> list[Any]:
    return [(torch.optim.Adam, list(model.parameters()), ADAM)]


def two_for_all(model: nn.Module) -> list[Any]:
    return [*sgd(model), *adam(model)]


def different(model: Any) -> list[Any]:
    first = [*model.first.parameters()]
    rest = [param for param in model.parameters() if not any(param is each for each in first)]
    return [(torch.optim.Adagrad, first, {"lr": 0.1}), (torch.optim.RMSprop, rest, {"lr": 0.01, "momentum": 0.5})]


def make(prepare: Callable[[Net], None] = nothing) -> Net:
    torch.manual_seed(0)
    model = Net()
    prepare(model)
    return model


def attached(optimizer_class: Any = torch.optim.Adam, **kwargs: Any) -> Net:
    model = make()
    inbackward.apply_optimizer_in_backward(optimizer_class, model.parameters(), kwargs or ADAM)
    return model


def assert_equal(ours: nn.Module, standard: nn.Module, group: Any, local: tuple[str, ...] = ()) -> None:
    for (name, mine), (_, expected) in zip(ours.state_dict().items(), standard.state_dict().items(), strict=True):
        assert torch.equal(mine, expected), (name, mine - expected)
        if name not in local and "norm" not in name:
            everywhere = [torch.empty_like(mine) for _ in range(group.size())]
            distributed.all_gather(everywhere, mine, group=group)
            assert all(torch.equal(other, mine) for other in everywhere), name


def equals_plain_ddp(
    group: Any,
    run: Run = plain,
    options: dict[str, Any] | None = None,
    *,
    assign: Callable[[nn.Module], list[Any]] = adam,
    prepare: Callable[[Net], None] = nothing,
    when: str = "before",
    steps: int = 4,
) -> None:
    options = {"process_group": group, **(options or {})}
    rank = group.rank()
    ours, standard = make(prepare), make(prepare)
    optimizers = [kind(params, **kwargs) for kind, params, kwargs in assign(standard)]
    ddp = DistributedDataParallel(standard, **options)
    for step in range(steps):
        run(ddp, step, rank)
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    def attach() -> None:
        for assignment in assign(ours):
            inbackward.apply_optimizer_in_backward(*assignment)

    if when == "before":
        attach()
    ddp = inbackward.wrap_ddp(ours, **options)
    if when == "after":
        attach()
    if when == "after the first forward":
        with torch.no_grad():
            ddp.eval()(batch(0, rank))
        ddp.train()
        attach()
    for step in range(steps):
        run(ddp, step, rank)
        assert [name for name, param in ours.named_parameters() if param.grad is not None] == []
    assert_equal(ours, standard, group, ("spare.weight",) if prepare is ignore else ())
    mine = [optimizer.state_dict()["state"] for optimizer in inbackward.get_in_backward_optimizers(ours)]
    theirs = [
        {0: one.state[param]} if param in one.state else {} for param in standard.parameters() for one in optimizers
    ]
    theirs = [state for state in theirs if state] if assign is different else theirs
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
