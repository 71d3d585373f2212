"""What the usual form proves of each op and each layer: `python -m tests.proved`.

It prints how many tests are collected, and each property with the dtype it is proved in and how
many cases it is proved of; with `--all`, a line for every op, case, dtype and property instead. All
is read off the tests that pytest collects, so it is written down nowhere else.

Two states are compared by running this file in a checkout of each:

    (cd OLD && PYTHONPATH=. python NEW/tests/proved.py --all) > old
    (cd NEW && PYTHONPATH=. python tests/proved.py --all) > new
    diff old new
"""

import collections
import contextlib
import os
import sys
from collections.abc import Iterator

import pytest

TABLES = "tests/test_ops.py", "tests/test_combine.py"


class Collected:
    """A plugin that keeps the tests which pytest would run."""

    def __init__(self) -> None:
        self.items: list = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collected(*paths: str) -> list:
    """The tests of these files, or of all, in the usual form."""
    kept = Collected()
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        pytest.main(["--collect-only", "-p", "no:cacheprovider", *paths], [kept])
    return kept.items


def proofs(item) -> Iterator[tuple[str, str, str, str]]:
    """Op or layer, case, dtype and property of a test that stands for a row of a table."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    name = item.originalname.removeprefix("test_")
    dtypes = ["float64" if "x64" in item.fixturenames else "float32"]
    if "is_proved" in name:
        dtypes = item.module.COARSER if "coarser" in name else ["float64"]
    for dtype in dtypes:
        if "row" in given:
            yield given["row"].rule.name, given["row"].name, dtype, name
        elif "rule" in given:
            for case in given["rule"].cases if "every_case" in name else ["-"]:
                yield given["rule"].name, case, dtype, name
        elif "name" in given:
            yield given["name"], "-", dtype, name


def main() -> None:
    tests = collected()
    files = [item for item in tests if item.nodeid.startswith(TABLES)]
    found = {proof for item in files for proof in proofs(item)}
    if "--all" in sys.argv:
        print(*map(", ".join, sorted(found)), sep="\n")
        return
    print(f"{len(tests)} tests, {len(found)} proofs")
    counts = collections.Counter((name, dtype) for _, _, dtype, name in found)
    for (name, dtype), n in sorted(counts.items()):
        print(f"{n:5}  {dtype:8}  {name}")


if __name__ == "__main__":
    main()
