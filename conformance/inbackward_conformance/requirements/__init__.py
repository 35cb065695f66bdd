"""The requirements, a chapter a module: each test function is one promise, its docstring the normative text."""
