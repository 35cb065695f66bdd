"""Torch's stores, public names that its type stubs do not export."""

from torch.distributed import (  # type: ignore[attr-defined]
    DistStoreError,
    FileStore,
    HashStore,
    PrefixStore,
    Store,
)

__all__ = ["DistStoreError", "FileStore", "HashStore", "PrefixStore", "Store"]
