"""The comparisons: a rule beside its primal at every point, in every way, in two dtypes."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ...rules.compare import LIMITS, cast, cotangents, is_floating, wide
from .kinks import Kink
from .programs import Programs, Pulled, of_active, pulled, second, ways_of
from .report import Comparison
from .sides import (
    compared,
    elsewhere,
    flat,
    lenient,
    line_of,
    misfit,
    nudged,
    off,
    rounding,
    signed,
)
from .subject import Subject

POINTS = ("as given", "shuffled", "zero", "ties", "large", "tiny", "no cotangent")
"""The arrays that a rule is run at: those given, and what becomes of the active ones."""

SHUFFLES = 8
"""How many orders of the elements of each array "shuffled" means."""

WAYS = ("eager", "vmap", "scan", "remat", "grad of grad", "adjoint identity")
"""How a rule is run, beside compiled."""

SECOND, IDENTITY = 1e-9, 1e-10
"""Limits in float64 for gradients of gradients, and for the two inner products."""


def moved(point: str, arrays: Sequence, active: Sequence[int], order: int = 0) -> tuple:
    """The arrays of a point.

    >>> moved("ties", (np.array([1.0, 2.0, 3.0]),), (0,))
    (array([1., 1., 3.]),)
    """

    def one(x: Any) -> Any:
        x = np.asarray(x)
        if point == "shuffled":
            return np.random.default_rng(order).permutation(x.reshape(-1)).reshape(x.shape)
        if point == "zero":
            return np.zeros_like(x)
        if point == "ties":
            return x.reshape(-1)[np.arange(x.size) // 2 * 2].reshape(x.shape)
        factor = {"large": 1e3, "tiny": 1e-6}.get(point)
        with np.errstate(over="ignore"):
            return x if factor is None else x * np.asarray(factor, x.dtype)

    return tuple(one(x) if i in active else x for i, x in enumerate(arrays))


class Judge:
    """What compares a rule with its primal; programs are compiled once for all arrays alike.

    Attributes:
        against: What the truth is.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.dtype = subject, subject.dtype
        self.active, self.names = subject.active, [subject.names[i] for i in subject.active]
        self.against = "jax.vjp of the primal"
        self.notes: list[str] = []
        self.own = Programs(subject.rule, self.active, is_quick=False)
        self.plain = Programs(subject.primal, self.active, is_quick=True)
        rule, primal = subject.wide or (subject.rule, subject.primal)
        self.rule = Programs(rule, self.active, is_quick=True)
        self.truth = Programs(primal, self.active, is_quick=True)

    @contextlib.contextmanager
    def in_float64(self) -> Any:
        """The context for what is computed in float64."""
        with jax.enable_x64(True) if self.subject.wide else contextlib.nullcontext():
            yield

    @property
    def finest(self) -> str:
        """The dtype of the truth."""
        return "float64" if self.subject.wide else self.dtype

    def limit(self, fine: float) -> float:
        """A limit that is `fine` in float64."""
        return fine if self.finest == "float64" else LIMITS[self.finest]

    def drawn(self, subject: Subject, random: int) -> tuple:
        """The adjoint of each floating output."""
        if subject.adjoints is not None:
            return subject.adjoints
        shapes = jax.eval_shape(subject.rule, *subject.arrays)
        made = np.random.default_rng((random, 1))
        some = [shape for shape in shapes if is_floating(shape)]
        return tuple(cotangents(made, some, self.dtype))

    def wide(self, arrays: Sequence) -> tuple:
        """Arrays as the truth takes them."""
        if not self.subject.wide:
            return tuple(arrays)
        return tuple(cast(np.asarray(x), np.float64) if is_floating(x) else x for x in arrays)

    def judge(
        self, subject: Subject, points: Sequence[str], ways: Sequence[str], random: int
    ) -> list[Comparison]:
        """All comparisons of these arrays."""
        adjoints = self.drawn(subject, random)
        found: list[Comparison] = []
        for point in points:
            nothing = point == "no cotangent"
            given = tuple(map(np.zeros_like, adjoints)) if nothing else adjoints
            rows: list[Comparison] = []
            for order in range(SHUFFLES if point == "shuffled" else 1):
                if not any(c.verdict == "wrong" for c in rows):
                    arrays = moved(point, subject.arrays, self.active, order)
                    rows = self._at(point, arrays, given, random)
            found += rows
        if not any(c.verdict == "wrong" for c in found):
            found += self._ways(subject.arrays, adjoints, ways, found, random)
        return found

    def _at(self, point: str, arrays: tuple, adjoints: tuple, random: int) -> list[Comparison]:
        wide = self.wide(arrays), self.wide(adjoints)
        with self.in_float64():
            truth = self.truth.pull(*wide)
            fine = self.rule.pull(*wide) if self.subject.wide else None
        kink = Kink(self, *wide, random)
        found = []
        if fine is not None:
            measure = functools.partial(self._noise, self.finest, arrays, adjoints, truth, random)
            found += self._pair(point, "float64", fine, truth, wide[0], measure, kink)
        exact = not any(c.verdict == "wrong" for c in found)
        if fine is None or (exact and self.dtype != "float64"):
            measure = functools.partial(self._noise, self.dtype, arrays, adjoints, truth, random)
            coarse = self.own.pull(arrays, adjoints)
            rows = self._pair(point, self.dtype, coarse, truth, arrays, measure, kink)
            found += rows if point == "as given" or fine is None else map(lenient, rows)
        return found

    def _pair(
        self, point: str, dtype: str, got: Pulled, truth: Pulled, arrays: Sequence,
        measure: Callable, kink: Kink,
    ) -> list[Comparison]:  # fmt: skip
        noise = functools.cache(measure)
        start = Comparison("jit", point, dtype, "value", limit=LIMITS[dtype])
        rows = []
        for n, (a, b) in enumerate(zip(got.outputs, truth.outputs, strict=True)):
            name = "value" if len(got.outputs) == 1 else f"value {n}"
            own = start._replace(quantity=name)
            rows.append(compared(own, a, b, lambda n=n: noise().outputs[n]))
        for n, (a, b) in enumerate(zip(got.gradients, truth.gradients, strict=True)):
            own, like = start._replace(quantity=self.names[n]), np.asarray(arrays[self.active[n]])
            said = misfit(a, like)
            row = own._replace(verdict="wrong", error=float("inf"), note=said)
            if not said:
                row = compared(own, a, b, lambda n=n: noise().gradients[n])
                if row.verdict == "wrong" and row.found:
                    row = kink.judged(row, n, a, b)
            rows.append(row)
        return rows

    def values(self, subject: Subject) -> list[Comparison]:
        """The outputs alone, of a rule whose backward pass raises; none if its forward does."""

        def ahead(arrays: list) -> list:
            run = of_active(self.rule.f, arrays, self.active)
            return jax.vjp(run, *(arrays[i] for i in self.active))[0]

        arrays = list(self.wide(subject.arrays))
        plain = of_active(self.truth.f, arrays, self.active)
        start = Comparison("jit", "as given", self.finest, "value", limit=LIMITS[self.finest])
        with self.in_float64():
            try:
                found = self.rule.compiled("ahead", ahead)(arrays)
            except Exception:  # it raises forward as well
                return []
            truth = jax.device_get(plain(*(arrays[i] for i in self.active)))
        return [
            compared(start, a, b, lambda: 0.0, "the primal")
            for a, b in zip(found, truth, strict=True)
        ]

    def _noise(
        self, dtype: str, arrays: tuple, adjoints: tuple, truth: Pulled, random: int
    ) -> Pulled:
        """How far JAX's own gradient of the primal is off in this dtype, at arrays nearby.

        That of float64 is that of a coarser dtype, scaled: the truth is of float64 itself. Terms
        of a sum may cancel; with other signs of the adjoints they show how large they are.
        """
        coarse = self.dtype if self.dtype != "float64" else "float32"
        units = [float(jax.numpy.finfo(d).eps) for d in (coarse, dtype)]
        shapes: list[list[float]] = []
        given = [cast(np.asarray(x), coarse) if is_floating(x) else x for x in arrays]
        outputs = filter(is_floating, jax.eval_shape(self.subject.primal, *given))
        rounded = [
            np.asarray(a).astype(y.dtype)
            for a, y in zip(cast(adjoints, coarse), outputs, strict=True)
        ]
        draw = np.random.default_rng((random, 2))
        for k in range(4):
            moves = draw if k else None
            near = [nudged(x, units[0], moves) if is_floating(x) else x for x in given]
            cts = [signed(a, moves) for a in rounded]
            found = self.plain.pull(near, cts)
            with self.in_float64():
                right = self.truth.pull(self.wide(near), self.wide(cts))
            shapes.append([off(a, b) for a, b in zip(flat(found), flat(right), strict=True)])
        largest = [max(column) * units[1] / units[0] for column in zip(*shapes, strict=True)]
        count = len(truth.outputs)
        return Pulled(largest[:count], largest[count:])

    def _ways(
        self, arrays: tuple, adjoints: tuple, ways: Sequence[str], before: list, random: int
    ) -> list[Comparison]:
        wide, cts = self.wide(arrays), self.wide(adjoints)
        tied = any(c.verdict == "tie" and c.point == "as given" for c in before)
        found = self._runs(wide, cts, ways)
        with self.in_float64():
            if "grad of grad" in ways and self.truth.gradient is pulled:
                found += self._squares(wide, cts, tied, random)
            if "adjoint identity" in ways and not tied:
                found += self._products(wide, cts, random)
        return found

    def _runs(self, arrays: tuple, adjoints: tuple, ways: Sequence[str]) -> list[Comparison]:
        """The rule in other ways, beside itself run alone."""
        other = second(arrays, self.active)
        both = (arrays, other)
        chosen = ways_of(self.subject.names, ways)
        compiled = {way: f for way, f in chosen.items() if way != "eager"}
        with self.in_float64():
            results = _tried(lambda part: self.rule.run(part, both, adjoints), compiled)
            if "eager" in chosen:
                run = functools.partial(chosen["eager"], self.rule.f, self.active, both, adjoints)
                results |= _tried(lambda _: {"eager": jax.device_get(run())}, {"eager": None})
            alone = self.rule.pull(arrays, adjoints).gradients
            again: Callable = lambda cts: self.rule.pull(arrays, cts).gradients  # noqa: E731
            size = functools.cache(functools.partial(rounding, again, adjoints, self.finest))
            rows = []
            for way in chosen:
                gradients = results[way]
                start = Comparison(way, "as given", self.finest, "all", limit=LIMITS[self.finest])
                if isinstance(gradients, Exception):
                    said = f"raises {line_of(gradients)}"
                    rows.append(start._replace(verdict="wrong", error=float("inf"), note=said))
                    continue
                expected = alone
                if way not in ("eager", "remat"):
                    expected = self._stacked(way, both, adjoints)
                for n, (a, b) in enumerate(zip(gradients, expected, strict=True)):
                    row = start._replace(quantity=self.names[n])
                    rows.append(compared(row, a, b, lambda n=n: size()[n], "the rule alone"))
        return rows

    def _stacked(self, way: str, both: tuple, adjoints: tuple) -> list:
        arrays, other = both
        names = self.subject.names
        if way.startswith("vmap"):
            i = names.index(way.removeprefix("vmap over "))
            other = tuple(other[n] if n == i else x for n, x in enumerate(arrays))
        pairs = [self.rule.pull(some, adjoints).gradients for some in (arrays, other)]
        return [np.stack(pair) for pair in zip(*pairs, strict=True)]

    def _squares(self, arrays: tuple, adjoints: tuple, tied: bool, random: int) -> list[Comparison]:
        start = Comparison("grad of grad", "as given", self.finest, "all", limit=self.limit(SECOND))
        try:
            truth = self.truth.square(arrays, adjoints)
        except Exception as error:  # the primal has no second derivative in JAX
            note = f"the primal: {line_of(error)}"
            return [start._replace(verdict="unjudged", note=note)]
        try:
            found = self.rule.square(arrays, adjoints)
        except Exception as error:  # whatever a backward pass raises that JAX cannot differentiate
            note = f"raises {line_of(error)}"
            return [start._replace(verdict="wrong", error=float("inf"), note=note)]
        names = [*self.names, *(f"cotangent {i}" for i in range(len(adjoints)))]
        run = functools.partial(self.truth.square, arrays)
        size = functools.cache(functools.partial(rounding, run, adjoints, self.finest))
        rows = [
            compared(
                start._replace(quantity=name), a, b, lambda n=n: size()[n], "that of the primal"
            )
            for n, (name, a, b) in enumerate(zip(names, found, truth, strict=True))
        ]
        if any(row.verdict == "wrong" for row in rows):
            away = elsewhere(arrays, self.active, random)
            pairs = zip(
                self.rule.square(away, adjoints), self.truth.square(away, adjoints), strict=True
            )
            nearby = [compared(start, a, b, lambda: 0.0) for a, b in pairs]
            if tied or not any(row.verdict == "wrong" for row in nearby):
                rows = [r._replace(verdict="tie") if r.verdict == "wrong" else r for r in rows]
        return rows

    def _products(self, arrays: tuple, adjoints: tuple, random: int) -> list[Comparison]:
        """<J v, w> of the primal in forward mode, beside <v, J' w> of the rule."""
        draw = np.random.default_rng((random, 3))
        start = Comparison(
            "adjoint identity", "as given", self.finest, "all", limit=self.limit(IDENTITY)
        )
        gradients = self.rule.pull(arrays, adjoints).gradients
        rows = []
        for n, name in enumerate(self.names):
            ways = [np.zeros_like(arrays[i]) for i in self.active]
            ways[n] = draw.standard_normal(ways[n].shape).astype(ways[n].dtype)
            try:
                tangents = self.truth.move(arrays, ways)
            except Exception as error:  # the primal has no forward derivative in JAX
                return [start._replace(verdict="unjudged", note=f"the primal: {line_of(error)}")]
            left = [wide(t * ct) for t, ct in zip(tangents, adjoints, strict=True)]
            right = wide(gradients[n] * ways[n])
            size = sum(np.abs(x).sum() for x in (*left, right))
            row = start._replace(quantity=name)
            sums = [np.asarray(x) for x in (right.sum(), sum(x.sum() for x in left))]
            said = "<J v, w> of the primal"
            rows.append(compared(row, sums[0], sums[1], lambda: 0.0, said, float(size)))
        return rows


def _tried(run: Callable[[dict], dict], ways: dict[str, Any]) -> dict[str, Any]:
    """All at once; if there is one that raises, each by itself, and what it raised."""
    if not ways:
        return {}
    try:
        return run(ways)
    except Exception as error:  # whatever a rule raises under a transformation
        if len(ways) == 1:
            return dict.fromkeys(ways, error)
    found: dict[str, Any] = {}
    for way, f in ways.items():
        found |= _tried(run, {way: f})
    return found
