"""The adapters that ship with the suite, each in a module of its own, with what is known to fail beside it."""
