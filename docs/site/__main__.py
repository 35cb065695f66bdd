"""`python -m docs.site FOLDER` writes the source of the site, which `sphinx-build` reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from docs.site.assemble import assemble

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="is emptied first")
    parser.add_argument("--records", type=Path, default=ROOT / "docs" / "records", help="a folder of *.jsonl.xz")
    args = parser.parse_args()
    print(f"{len(assemble(ROOT, args.folder, args.records))} pages")
