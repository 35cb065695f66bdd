"""`python -m docs.site FOLDER` writes the source of the site, which `sphinx-build` reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from docs.site.assemble import assemble

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="is emptied first")
    print(f"{len(assemble(ROOT, parser.parse_args().folder))} pages")
