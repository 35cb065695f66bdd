"""A step on another stream than the gradient's; where there is no accelerator, tensors of the device `meta` play it."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch.distributed import fsdp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

import inbackward
from impl_support import attached, make, on_ranks, plain
from inbackward import _attachment, _bucket, _ddp
from inbackward._streams import gather, keep_for_current_stream, stream_of, wait_for_gloo, wait_for_offload


def kept(grad: torch.Tensor | None) -> list[tuple[torch.Tensor, object]]:
    """Returns the tensors whose memory is kept for a stream, with what plays the stream: the device that it is of."""
    found: list[tuple[torch.Tensor, object]] = []
    with (
        mock.patch.object(torch.accelerator, "current_stream", lambda device: f"current stream of {device}"),
        mock.patch.object(torch.Tensor, "record_stream", lambda tensor, stream: found.append((tensor, stream))),
    ):
        keep_for_current_stream(grad)
    return found


def test_a_gradient_is_kept_for_the_current_stream_of_its_device() -> None:
    grad = torch.ones(2, device="meta")
    ((tensor, stream),) = kept(grad)
    assert tensor is grad
    assert stream == "current stream of meta"


@pytest.mark.parametrize("grad", [None, torch.ones(2)], ids=["none", "on a CPU"])
def test_there_is_nothing_to_keep_on_a_cpu(grad: torch.Tensor | None) -> None:
    assert kept(grad) == []


@on_ranks(2)
def test_of_a_sharded_gradient_this_ranks_part_is_kept() -> None:
    mesh = init_device_mesh("cpu", (2,))
    part = torch.ones(2, device="meta")
    ((tensor, _),) = kept(DTensor.from_local(part, mesh, [Shard(0)], run_check=False))
    assert type(tensor) is torch.Tensor
    assert tensor.shape == part.shape
    assert kept(DTensor.from_local(torch.ones(2), mesh, [Shard(0)], run_check=False)) == []


@pytest.mark.parametrize(
    ("is_cpu", "mesh", "waits"),
    [(True, "cuda", True), (True, "cpu", False), (False, "cuda", False)],
    ids=["offloaded", "trained on a CPU", "left on the accelerator"],
)
def test_what_is_offloaded_is_waited_for(is_cpu: bool, mesh: str, waits: bool) -> None:
    stream = mock.Mock()
    with mock.patch.object(torch.accelerator, "current_stream", return_value=stream):
        wait_for_offload(SimpleNamespace(is_cpu=is_cpu, device_mesh=SimpleNamespace(device_type=mesh)))
    assert stream.synchronize.call_count == waits


@pytest.mark.parametrize("views", [True, False])
@on_ranks(2)
def test_under_ddp_each_averaged_gradient_is_kept_before_its_step(rank: int, views: bool) -> None:
    ours, standard = attached(), make()
    start = {param: param.detach().clone() for param in ours.parameters()}
    stepped: list[bool] = []
    grads: list[torch.Tensor] = []

    def keep(grad: torch.Tensor) -> None:
        (param,) = (param for param in start if param.grad is grad)
        stepped.append(not torch.equal(param, start[param]))
        grads.append(grad.clone())

    with mock.patch.object(_ddp, "keep_for_current_stream", keep):
        plain(inbackward.wrap_ddp(ours, gradient_as_bucket_view=views, bucket_cap_mb=1e-5), 0, rank)
    plain(DistributedDataParallel(standard), 0, rank)
    averaged = [param.grad for param in standard.parameters()]
    assert stepped == [False] * len(averaged)
    for expected in averaged:
        assert expected is not None
        assert any(torch.equal(expected, grad) for grad in grads)


@on_ranks(2)
def test_under_fsdp2_each_gradient_is_waited_for_and_kept_before_its_step(rank: int) -> None:
    model = make()
    fsdp.fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    inbackward.apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    names = {param: name for name, param in model.named_parameters()}
    calls: list[str] = []
    for optimizer in inbackward.get_in_backward_optimizers(model):
        (param,) = optimizer.param_groups[0]["params"]
        optimizer.register_step_pre_hook(lambda *_, name=names[param]: calls.append(f"step {name}"))

    def keep(grad: torch.Tensor) -> None:
        calls.extend(f"keep {name}" for param, name in names.items() if param.grad is grad)

    with (
        mock.patch.object(_attachment, "wait_for_offload", lambda param: calls.append(f"wait {names[param]}")),
        mock.patch.object(_attachment, "keep_for_current_stream", keep),
    ):
        plain(model, 0, rank)
    assert sorted(calls) == sorted(f"{what} {name}" for name in names.values() for what in ("wait", "keep", "step"))
    for name in names.values():
        order = [call.partition(" ")[0] for call in calls if call.endswith(f" {name}")]
        assert order == ["wait", "keep", "step"], name


def test_a_stream_waits_for_the_others_and_keeps_what_it_steps() -> None:
    current, other = (mock.Mock(device=torch.device("meta"), name=name) for name in ("current", "other"))
    grad = torch.ones(2, device="meta")
    with (
        mock.patch.object(torch.accelerator, "current_stream", return_value=current),
        mock.patch.object(torch.Tensor, "record_stream") as record_stream,
    ):
        assert stream_of(torch.ones(2)) is None
        assert stream_of(grad) is current
        gather([grad, torch.ones(2)], [current, other])
    current.wait_stream.assert_called_once_with(other)
    record_stream.assert_called_once_with(current)


@on_ranks(2)
def test_a_bucket_waits_for_the_streams_of_all_its_gradients() -> None:
    """They may be of several roots of FSDP2, or of parameters that are not sharded."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    for part in (model[0], model[2]):
        fsdp.fully_shard(part, mesh=init_device_mesh("cpu", (2,)))
    inbackward.step_in_backward(torch.optim.SGD(model.parameters(), lr=0.1), bucket_bytes=4 * 24)
    inbackward.declare_local(model[1].parameters())
    gathered: list[tuple[int, list[str]]] = []
    with (
        mock.patch.object(_bucket, "stream_of", side_effect="abcdefgh"),
        mock.patch.object(_bucket, "gather", lambda grads, of: gathered.append((len([*grads]), [*of]))),
    ):
        model(torch.ones(2, 4)).sum().backward()
    assert gathered, "no bucket was full"
    told = [stream for _, of in gathered for stream in of]
    assert told == sorted(told)
    assert all(count == len(of) for count, of in gathered)


@pytest.mark.parametrize(
    ("backends", "device", "waits"),
    [
        ("cpu:gloo,cuda:gloo", "cuda", True),
        ("cpu:gloo,cuda:nccl", "cuda", False),
        ("cpu:gloo,cuda:gloo", "cpu", False),
    ],
)
def test_results_of_gloo_are_waited_for(backends: str, device: str, waits: bool) -> None:
    with (
        mock.patch("torch.distributed.get_backend_config", return_value=backends),
        mock.patch.object(torch.accelerator, "synchronize") as synchronize,
    ):
        wait_for_gloo(None, torch.device(device))
    assert synchronize.call_count == waits


@on_ranks(2)
def test_futures_of_ddp_are_chained_and_not_collected(rank: int) -> None:
    """A future that collects others makes no stream of an accelerator wait for them."""
    with mock.patch.object(torch.futures, "collect_all", side_effect=AssertionError("collected")):
        ddp = inbackward.wrap_ddp(attached(), find_unused_parameters=True, bucket_cap_mb=1e-5)
        plain(ddp, 0, rank)
    assert all(param.grad is None for param in ddp.parameters())
