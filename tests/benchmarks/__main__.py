"""Run a benchmark by name: `python -m tests.benchmarks NAME`."""

import importlib
import sys

NAMES = ("decoding", "ops", "fit", "lenet", "precision", "step", "steps", "traces")


def main() -> None:
    """Run the benchmark that is named; `ops` takes words of its rows, and `steps` options."""
    name, *words = sys.argv[1:] or [""]
    if name not in NAMES:
        sys.exit(f"benchmarks: expected one of {', '.join(NAMES)}, got {name!r}. Name one.")
    module = importlib.import_module(f".{name}", __package__)
    if name in ("ops", "steps"):
        module.main(words)
    else:
        module.main()


if __name__ == "__main__":
    main()
