"""Assembles the source of the documentation site: `python -m docs.site FOLDER`.

The pages in `docs/` and the READMEs of the repository are copied, and the links between them rewritten. What follows
from the code or from records is generated: requirements, verdicts, the matrix, the help of the command line.
"""
