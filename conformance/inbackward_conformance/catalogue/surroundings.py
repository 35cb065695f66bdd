"""What plans run backward inside of, while forward and the step of the standard loop are outside.

It depends on torch alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@contextmanager
def compiled_autograd() -> Iterator[None]:
    """Have each backward captured as a graph, which runs without further compilation."""
    torch._dynamo.reset()  # noqa: SLF001 (a module that torch documents, whatever its name; else the code of another run)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):  # noqa: SLF001 (torch's tutorial)
        yield


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "compiled_autograd": compiled_autograd,
}
"""By the name in a plan."""
