"""What ranks tell each other arrives to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.ranks.message import pack, unpack
from inbackward_conformance.tensors import same_bits

TENSORS = {
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "signs of zero and NaN": torch.tensor([0.0, -0.0, float("nan"), float("inf")]),
    "bfloat16": torch.arange(4, dtype=torch.bfloat16),
    "bool": torch.tensor([True, False]),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "transposed": torch.arange(6).reshape(2, 3).t(),
    "sparse": torch.eye(3).to_sparse(),
    "parameter": nn.Parameter(torch.ones(2, 2), requires_grad=False),
    "requires grad": torch.ones(2, requires_grad=True),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_tensors_arrive_as_they_were(tensor: Tensor) -> None:
    arrived = unpack(pack({"states": [tensor]}))["states"][0]
    assert type(arrived) is type(tensor)
    assert arrived.requires_grad == tensor.requires_grad
    assert same_bits(arrived, tensor)


def test_what_arrives_can_be_changed() -> None:
    arrived = unpack(pack(torch.zeros(3)))
    arrived.add_(1)
    assert arrived.tolist() == [1, 1, 1]
