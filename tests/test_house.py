"""The house rules: floors, sizes, docstrings, names and what may not stand in a file."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import funcnet as fn

from .cases import RULES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "funcnet"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULE_FILES = [path for path in FILES if path.name != "__init__.py"]
MODULES = sorted(info.name for info in pkgutil.walk_packages(fn.__path__, "funcnet."))


def floors() -> dict[str, tuple[int, int, int]]:
    """From docs/design.md: each module's floor, its row on that floor, its place in the row."""
    places: dict[str, tuple[int, int, int]] = {}
    rows: dict[int, int] = {}
    for line in (ROOT / "docs/design.md").read_text().splitlines():
        if not (match := re.match(r"\| (\d+) \| (.+?) \|", line)):
            continue
        floor, names = int(match[1]), match[2]
        room, _, inside = names.rpartition(":")
        room = room.strip("`")
        row = rows[floor] = rows.get(floor, 0) + 1
        modules = [f"{room}.{name}".strip(".") for name in re.findall(r"`(\w+)`", inside)]
        for place, module in enumerate(modules):
            places[module] = (floor, row, place)
    return places


FLOORS = floors()


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts)


def imports(path: Path) -> set[str]:
    """The funcnet modules that a file imports, at the top or inside a function."""
    package = path.relative_to(PACKAGE).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("funcnet.")
                for alias in node.names
                if alias.name.startswith("funcnet.")
            }
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            if not node.level and (node.module or "").split(".")[0] != "funcnet":
                continue
            tail = (node.module or "").removeprefix("funcnet").strip(".")
            stem = ".".join([*base, *([tail] if tail else [])])
            for alias in node.names:
                inner = f"{stem}.{alias.name}".strip(".")
                found.add(inner if inner in FLOORS else stem)
    return found - {""}


def test_every_module_stands_on_a_floor():
    assert {module_of(path) for path in MODULE_FILES} == set(FLOORS)


def test_a_package_only_says_what_it_holds():
    gathers = {PACKAGE / "__init__.py", PACKAGE / "nets/__init__.py"}
    for path in set(FILES) - set(MODULE_FILES) - gathers:
        assert not imports(path), path


@pytest.mark.parametrize("path", MODULE_FILES, ids=module_of)
def test_imports_go_down_the_floors(path):
    name = module_of(path)
    floor, row, place = FLOORS[name]
    for other in imports(path):
        other_floor, other_row, other_place = FLOORS[other]
        below = other_floor < floor
        same_room = (floor, row) == (other_floor, other_row) and other_place < place
        assert below or same_room, f"{name} imports {other}"


def test_ops_and_rules_know_no_layer():
    for path in MODULE_FILES:
        if module_of(path).split(".")[0] in ("ops", "rules"):
            assert not {name for name in imports(path) if name.startswith("nn.")}


CONFINED = {
    "optax": {"train.step", "train.optimizers", "train.precision"},
    "matplotlib": {"render.picture"},
    "rich": {"train.progress"},
    "grain": {"feed.reader"},
    "PIL": {"feed.images", "commands.files"},
    "pyarrow": {"feed.tables"},
    "orbax": {"train.stored"},
    "tensorboardX": {"train.log"},
    "jax.core": {"jaxpr.jaxprs"},
    "jax.extend": {"jaxpr.jaxprs"},
    "jax._src": set(),
}


@pytest.mark.parametrize("library", CONFINED)
def test_third_parties_are_confined(library):
    pattern = re.compile(
        rf"^\s*(import|from) {re.escape(library)}\b|\b{re.escape(library)}\.", re.M
    )
    users = set()
    for path in FILES:
        code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.S)
        if pattern.search(code):
            users.add(module_of(path))
    assert users <= CONFINED[library]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length < 60, f"{node.name} has {length} lines"


def public(module) -> list[tuple[str, object]]:
    members = inspect.getmembers(module, lambda x: inspect.isfunction(x) or inspect.isclass(x))
    return [
        (name, member)
        for name, member in members
        if not name.startswith("_") and member.__module__ == module.__name__
    ]


LONG = {"funcnet.layers.recurrent", "funcnet.layers.state_space", "funcnet.layers.transformer"}
LONG |= {"funcnet.ops.backprop", "funcnet.ops.losses.ctc", "funcnet.verdicts.health.health"}


def compiling(name):
    """Whole networks and what is like them take long to compile."""
    marks = [pytest.mark.slow, pytest.mark.long] * (
        name.startswith("funcnet.nets.") or name in LONG
    )
    return pytest.param(name, marks=marks, id=name)


@pytest.mark.parametrize("name", [compiling(name) for name in MODULES])
def test_docstrings_and_their_examples(name, networks_compile_whole, ops_compile_whole):
    module = importlib.import_module(name)
    assert module.__doc__
    for member_name, member in public(module):
        assert member.__doc__, f"{name}.{member_name}"
    rules = dict(fn.RULES)
    ops = {n: getattr(fn, n) for n in rules if n in vars(module) and hasattr(fn, n)}
    results = doctest.testmod(module, extraglobs=ops, optionflags=doctest.NORMALIZE_WHITESPACE)
    fn.RULES.clear()  # an example may define an op of its own
    fn.RULES.update(rules)
    assert results.failed == 0


def exported() -> list[tuple[str, object]]:
    return [(n, f) for n, f in vars(fn).items() if callable(f) and not n.startswith("_")]


@pytest.mark.parametrize("name", [n for n, f in exported() if inspect.isfunction(f)])
def test_every_public_function_has_an_example(name):
    assert ">>>" in (getattr(fn, name).__doc__ or "")


def test_every_op_is_public_and_names_its_source():
    for rule in RULES:
        assert getattr(fn, rule.name) is rule.op
        assert "Reference:" in (rule.op.__doc__ or ""), rule.name


@pytest.mark.parametrize("module", ["__init__", "nets/__init__", "data", "io"])
def test_exports_are_explicit(module):
    for node in ast.parse((PACKAGE / f"{module}.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)


def test_what_can_be_seen_is_what_is_meant_to_be():
    modules = {name for name in dir(fn) if inspect.ismodule(getattr(fn, name))}
    assert modules == {"data", "initializers", "io", "nets", "plot", "tree"}
    assert not [name for name in dir(fn) if name.startswith("_")]


def test_no_swallowed_keywords():
    """Where a name is free, it is a child's, or an op's own, which are bound before."""
    allowed = {"network", "serial", "parallel", "normal_case", "op", "plain", "primal", "run"}
    allowed |= {"note", "down", "cell", "__call__"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.args.kwarg:
                checks_an_op = path.name == "checks.py" and node.args.args[0].arg == "op"
                free = node.name in allowed or node.name.startswith("_") or checks_an_op
                assert free, f"{module_of(path)}.{node.name}"


def tracked() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("git says which files belong to the project, and is not installed")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = listed.stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_top_level():
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    allowed = {"pyproject.toml", "README.md", "LICENSE", "funcnet", "tests", "examples", "docs"}
    assert {name for name in names if not name.startswith(".")} <= allowed


def test_no_large_file_and_no_marks_left_open():
    marks = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))
    for path in tracked():
        assert path.stat().st_size < 1_000_000
        if path.suffix in (".py", ".md", ".toml"):
            assert not marks.search(path.read_text()), path
