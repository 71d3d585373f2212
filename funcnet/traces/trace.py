"""`trace`: any JAX function, opened: what it computes, and how its adjoints come about."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..jaxpr import jaxprs
from ..jaxpr.concrete import as_jax
from ..jaxpr.walk import walk
from ..render import dot, svg
from ..render.html import frame, page
from ..types import require
from .document import SCHEMA, document, rows_of
from .fold import Layers, folded
from .program import Program, nearest, seeds_of
from .record.rows import Contribution, Row
from .run.primal import Primal
from .run.reverse import reverse
from .run.tape import Cell, Tape
from .show import graph, latex_tables, printed, whole
from .source.names import numbered
from .symbolic import Symbolic, symbolic
from .verdict import Check, compare

LONG = 60
"""Of a trace of more contributions, JAX's gradients are compiled to compare with."""


@dataclass(frozen=True)
class Trace:
    """What a function computed and how its adjoints came about, row by row.

    Attributes:
        function: The name of the function.
        rows: Every value: arguments, constants, and what each equation computed, in order.
        contributions: Every summand of every adjoint, in the order of the reverse pass.
        output: What the function returned.
        gradients: One for each argument (or for those of `wrt`), None where there is none.
        header: What the numbers depend on: versions, device, precision.
    """

    function: str
    rows: tuple[Row, ...]
    contributions: tuple[Contribution, ...]
    output: Any = field(default=None, repr=False)
    gradients: Any = field(default=None, repr=False)
    header: dict[str, str] = field(default_factory=dict)
    _check: Callable[[], Check] | None = field(default=None, repr=False, compare=False)
    _symbolic: Callable[[], Symbolic] | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, at: int | str) -> Row:
        """A row by number, by name ("v3"), by variable ("x"), or the output of a layer ("mlp")."""
        if isinstance(at, int):
            return self.rows[at]
        return self._find(at)

    def _find(self, path: str) -> Row:
        kinds = "a row, a variable or a layer"
        nearest("trace", path, self._index, kinds, KeyError)
        return self._index[path]

    @functools.cached_property
    def _index(self) -> dict[str, Row]:
        layers: dict[str, Row] = {}
        variables: dict[str, Row] = {}
        for row in self.rows:
            parts = row.scope.split("/") if row.scope else []
            for depth in range(1, len(parts) + 1):
                layers["/".join(parts[:depth])] = row
            if row.variable:
                variables[row.variable] = row
        names = {row.name: row for row in reversed(self.rows)}
        return {**layers, **variables, **names}

    def in_variables(self, formula: str) -> str:
        """A formula with Python's names for rows that have one: "x1' += v1'/x1"."""
        return re.sub(r"(?<![\w])v-?\d+(?:\.\d+)?(?:\[[\d,:]+\])*", self._variable, formula)

    def _variable(self, match: re.Match) -> str:
        row = self._index.get(match[0])
        return row.variable if row is not None and row.variable else match[0]

    def select(self, scope: str) -> tuple[Row, ...]:
        """All rows of a layer and of the layers in it."""
        inside = tuple(
            row for row in self.rows if row.scope == scope or row.scope.startswith(f"{scope}/")
        )
        return inside or (self._find(scope),)

    @functools.cached_property
    def last_iterations(self) -> dict[str, str]:
        """The last iteration that each row inside a loop has: "4", or "2,7" of two loops."""
        last: dict[str, str] = {}
        for row in self.rows:
            base, _, rest = row.name.partition("[")
            if rest and ":" not in rest:
                last[base] = rest.partition("]")[0]
        return last

    def __str__(self) -> str:
        """The primal, tangent and adjoint traces as tables; its layers if it has over 60 rows."""
        return printed(self)

    def table(self, *, width: int | None = None) -> str:
        """The primal, tangent and adjoint traces as tables, however many rows they have.

        Args:
            width: The most characters of a line; None for all that there is to say.

        >>> t = trace(lambda x: jnp.sum(jnp.sin(x)))(jnp.ones(3))
        >>> t.table(width=60).splitlines()[-1][:24]
        'Checked against jax.vjp:'
        """
        return whole(self, width)

    def layers(
        self,
        *,
        sort: Literal["program", "value", "adjoint", "gradient"] = "program",
        reverse: bool = False,
        depth: int | None = None,
    ) -> Layers:
        """One line a layer: the norms of its output, of the adjoint and of parameter gradients.

        What is in no layer stands under the function that it is written in.

        Args:
            sort: "program" for their order, or by a norm, the largest first.
            reverse: The other way round.
            depth: How many levels of layers within layers are shown; None for all.

        Returns:
            A sequence of `Layer`, which prints as a table with bars on a logarithmic scale.

        Raises:
            ValueError: If `sort` or `depth` is none of these.

        >>> def f(w, x):
        ...     with jax.named_scope("first"):
        ...         h = jnp.tanh(w * x)
        ...     return jnp.sum(h)
        >>> t = trace(f, wrt=0)(0.5, jnp.ones(4))
        >>> [(layer.name, layer.gradient is not None) for layer in t.layers()]
        [('first', True), ('f()', False)]
        """
        return folded(self, sort, reverse, depth)

    @property
    def forward_jaxpr(self) -> Any:
        """JAX's own forward pass: from the arguments to the outputs and what is kept."""
        return None if self._symbolic is None else self._symbolic().forward_jaxpr

    @property
    def reverse_jaxpr(self) -> Any:
        """JAX's own reverse pass: from what is kept and the adjoints of the outputs."""
        return None if self._symbolic is None else self._symbolic().reverse_jaxpr

    def json(self) -> str:
        """The trace as JSON; docs/traces.md has the schema. `Trace.load` reads it back."""
        return json.dumps(document(self), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def load(source: str | Path) -> "Trace":
        """A trace out of its JSON, or of a file with it. Output and gradients are not saved.

        Raises:
            ValueError: If it is something else.
        """
        written = str(source)
        is_file = not written.lstrip().startswith("{")
        fields = json.loads(Path(source).read_text() if is_file else written)
        found = fields.get("schema") if isinstance(fields, dict) else None
        require(
            found == SCHEMA,
            "Trace.load",
            f"a document of the schema {SCHEMA}",
            repr(found),
            "Write one with trace.json().",
        )
        rows, contributions = rows_of(fields)
        made = Trace(fields["function"], rows, contributions, header=fields["header"])
        check = fields["check"]
        values = check and Check(**check)._replace(
            difference=float(check["difference"]),
            scale=float(check["scale"]),
            trusted=tuple(check.get("trusted", ())),
        )
        return replace(made, _check=lambda: values) if values else made

    def latex(self) -> str:
        """The lecture's tables in LaTeX, with the packages amsmath and booktabs."""
        return latex_tables(self)

    def html(self) -> str:
        """One page with everything in it: it needs no network. Write it to a file and open it."""
        return page(self.function, document(self))

    def _repr_html_(self) -> str:
        return frame(self.html())

    def dot(self) -> str:
        """The graph in the language of Graphviz: data and gradient in each node, layers around."""
        return dot.graph(graph(self))

    def svg(self) -> str:
        """The same graph drawn."""
        return svg.graph(graph(self))

    def check(self) -> Check | None:
        """The gradients against `jax.vjp`; None under a transformation."""
        return None if self._check is None else self._check()


def trace(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
    tangents: Any = None,
    keep: Literal["summary", "all"] = "summary",
    max_iterations: int = 1000,
    sample: int | None = None,
) -> "Tracer":
    """`f`, opened: a call runs it and its reverse pass equation by equation and gives a `Trace`.

    `f` may be any JAX function of any library, jitted or not, with loops, branches and custom
    rules. Positional arguments are data, but for bools, strings and functions; keyword arguments
    are handed on as they are.

    Args:
        f: A function whose output is one real number (else give `seed`).
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output: a pytree like it, None for all that starts with nothing.
        has_aux: Whether `f` returns `(loss, aux)`, as for `jax.value_and_grad`: the seed is that
            of the loss, and aux starts with nothing.
        tangents: A direction for each argument (None for one that stays), for the tangent trace.
        keep: "summary" keeps arrays of up to 32 elements and figures of larger ones; "all" keeps
            every array.
        max_iterations: The longest loop that is opened in full.
        sample: Open this many iterations of each longer loop; the others run compiled.

    Returns:
        A function of the arguments of `f`. Its method `abstract` takes shapes and gives the
        equations alone.

    Raises:
        ValueError: When called, if the output is not one number and there is no seed, a loop is
            too long, `f` has side effects, an argument was deleted, or the gradient meets an
            equation that has no derivative.
        TypeError: When called, if `wrt` names an argument without floating numbers.

    >>> trace(lambda x1, x2: jnp.log(x1) + x1 * x2 - jnp.sin(x2))(2.0, 5.0)["x1"].adjoint.text
    '5.5'
    """
    return Tracer(f, wrt, seed, has_aux, tangents, keep, max_iterations, sample)


@dataclass(frozen=True)
class Tracer:
    """What `trace` returns: `f` with its options; a call gives a `Trace`."""

    f: Callable
    wrt: int | Sequence[int] | None
    seed: Any
    has_aux: bool
    tangents: Any
    keep: str
    max_iterations: int
    sample: int | None

    def abstract(self, *args: Any) -> Symbolic:
        """The equations alone, forward and reverse, from arrays or `jax.ShapeDtypeStruct`s.

        Raises:
            ValueError: If the gradient meets a loop of unknown length.

        >>> shape = jax.ShapeDtypeStruct((3,), "float32")
        >>> symbolic = trace(lambda x: jnp.sum(jnp.sin(x))).abstract(shape)
        >>> [e.text for pair in symbolic.pairs for e in pair.reverse]
        ["b1 = broadcast(v3')", 'b2 = b1 * v2']
        """
        return symbolic(Program("trace", self.f, args, {}), self.wrt, self.has_aux)

    def __call__(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the function and its reverse pass on these arguments."""
        program = Program("trace", self.f, args, kwargs)
        active = program.active(program.chosen(self.wrt))
        closed, tree = program.opened()
        limits = self.max_iterations, self.sample
        tape = Tape(numbered(closed), self.keep == "all", *limits)
        seeds = seeds_of("trace", tree, jaxprs.output_shapes(closed), self.seed, self.has_aux)
        cells = _arguments(tape, program, active)
        _set_tangents(tape, program, cells, self.tangents)
        outputs = walk(closed, cells, Primal(tape))
        contributions = reverse(tape, outputs, seeds)
        found = [_gradient(cell) for cell in cells]
        traced = any(map(jaxprs.is_traced, program.arrays))
        long = len(contributions) > LONG
        made = functools.partial(compare, program, active, found, seeds, [*tape.trusted], long)
        return Trace(
            getattr(self.f, "__name__", type(self.f).__name__),
            tape.rows(),
            contributions,
            program.output(tree, [cell.value for cell in outputs]),
            program.gradients(found, self.wrt),
            _header(),
            None if traced else functools.cache(made),
            functools.cache(functools.partial(symbolic, program, self.wrt, self.has_aux)),
        )


def _gradient(cell: Cell) -> Any:
    if not cell.active:
        return None
    return jnp.zeros_like(cell.value) if cell.adjoint is None else as_jax(cell.adjoint)


def _arguments(tape: Tape, program: Program, active: list[bool]) -> list[Cell]:
    """A cell for each array: `v0` the last, `v-1` the one before."""
    cells = []
    count = len(program.arrays)
    for i, (array, name) in enumerate(zip(program.arrays, program.names(), strict=True)):
        fields = {"expression": name, "variable": name, "active": active[i]}
        cells.append(tape.cell(array, f"v{i + 1 - count}", "argument", **fields))
    return cells


def _set_tangents(tape: Tape, program: Program, cells: list[Cell], tangents: Any) -> None:
    if tangents is None:
        return
    require(
        isinstance(tangents, tuple | list) and len(tangents) == len(program.args),
        "trace",
        f"tangents for {len(program.args)} arguments",
        len(tangents) if isinstance(tangents, tuple | list) else type(tangents).__name__,
        "Give one for each argument, None for one that does not move.",
    )
    given = []
    for arg, t in zip(program.args, tangents, strict=True):
        tree = jax.tree.structure(arg)
        given += [None] * tree.num_leaves if t is None else tree.flatten_up_to(t)
    for i, cell in zip(program.places, cells, strict=True):
        if given[i] is not None and jaxprs.is_inexact(cell.value):
            tape.move(cell, jnp.broadcast_to(jnp.asarray(given[i], cell.dtype), cell.shape))


def _header() -> dict[str, str]:
    return {
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "x64": str(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]  # a flag made at run time
        "matmul precision": str(jax.config.jax_default_matmul_precision),  # pyright: ignore[reportAttributeAccessIssue]  # a flag made at run time
    }
