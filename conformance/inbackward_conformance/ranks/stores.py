"""The stores of `torch.distributed`, whose type stubs do not export these public names."""

from torch.distributed import (  # type: ignore[attr-defined]
    DistStoreError,
    FileStore,
    HashStore,
    PrefixStore,
    Store,
)

__all__ = ["DistStoreError", "FileStore", "HashStore", "PrefixStore", "Store"]
