"""Run a benchmark by name: `python -m tests.benchmarks ops`, `lenet` or `step`."""

import importlib
import sys

NAMES = ("ops", "lenet", "step")


def main() -> None:
    """Run the benchmark that is named, with the words that follow."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in NAMES:
        sys.exit(f"benchmarks: expected one of {', '.join(NAMES)}, got {name!r}. Name one.")
    module = importlib.import_module(f".{name}", __package__)
    if name == "ops":
        module.main(sys.argv[2:])
    else:
        module.main()


if __name__ == "__main__":
    main()
