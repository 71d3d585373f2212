"""The scores of the verdicts: `python -m tests.verdicts NAME...` writes them into docs/verdicts.md.

Without a name all are made. Each is a module beside this one whose `table()` gives Markdown; it
takes the place of what stands between `<!-- NAME -->` and `<!-- end NAME -->` in that page.
"""

import importlib
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "verdicts.md"
NAMES = tuple(re.findall(r"<!-- end (\w+) -->", PAGE.read_text()))


def replaced(page: str, name: str, table: str) -> str:
    """The page with a score in its place."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table.strip()}\n{end}{after}"


def main() -> None:
    """Make the scores that are named, or all."""
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            sys.exit(f"verdicts: expected one of {', '.join(NAMES)}, got {name!r}. Name one.")
        table = importlib.import_module(f".{name}", __package__).table()
        print(f"{name}\n\n{table.strip()}\n", flush=True)
        PAGE.write_text(replaced(PAGE.read_text(), name, table))


if __name__ == "__main__":
    main()
