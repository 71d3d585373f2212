"""A network run by micro-batches, with batch norm's statistics taken over the whole batch.

The program of one micro-batch is cut at each batch norm. A stage is what lies between two: it runs
once for each micro-batch, and the statistics of what comes out are taken over all of them. Backward
makes a stage's values again, so that what is kept is what goes from one stage to the next.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from ..jaxpr import jaxprs, runs
from ..jaxpr.equations import jaxpr_of
from ..ops.norms.batch_norm import batch_norm, normalize
from ..ops.shared.masks import masked
from ..types import Array, require

NORM = "batch_norm"
ACROSS = (NORM, "info_nce", "nt_xent")
"""The ops that look across the examples of a batch."""


def across(closed: Any, names: Iterable[str] = ACROSS) -> bool:
    """Whether a program looks across the examples of its batch, as far as the ops tell."""
    eqns = jaxprs.open_jaxpr(closed)[0].eqns
    return any(
        jaxprs.label(eqn) in names or any(across(sub, names) for sub in jaxprs.sub_jaxprs(eqn))
        for eqn in eqns
    )


class Norm(NamedTuple):
    """A batch norm: the variables it reads and makes; None for what it has not."""

    x: Any
    scale: Any
    shift: Any
    where: Any
    eps: float
    y: Any
    mean: Any
    var: Any


class Stage(NamedTuple):
    """What is run between two batch norms.

    Attributes:
        norm: The batch norm at its beginning; None of the first stage.
        once: Equations whose values are the same for all micro-batches.
        each: The others.
    """

    norm: Norm | None
    once: list[Any]
    each: list[Any]


class Program:
    """What is run for each of some micro-batches of one length.

    Args:
        closed: The program of one micro-batch.
        values: Its inputs; those that differ by micro-batch are stacked.
        stacked: Which of them are.

    Attributes:
        stages: Its parts.
        apart: The variables whose values differ by micro-batch.
    """

    def __init__(self, closed: Any, values: Sequence[Any], stacked: Sequence[bool]) -> None:
        closed = jaxprs.rewrite(closed, _called)
        self.jaxpr, consts = jaxprs.open_jaxpr(closed)
        self.values = dict(zip(self.jaxpr.constvars, map(jaxprs.as_array, consts), strict=True))
        self.values.update(zip(self.jaxpr.invars, values, strict=True))
        self.apart = {v for v, on in zip(self.jaxpr.invars, stacked, strict=True) if on}
        self.stages = self._cut()
        self.later = self._later()

    def _cut(self) -> list[Stage]:
        stages = [Stage(None, [], [])]
        for eqn in self.jaxpr.eqns:
            differs = not self.apart.isdisjoint(filter(jaxprs.is_var, eqn.invars))
            if differs and jaxprs.label(eqn) == NORM and not self._of_each(eqn):
                norm = _norm(eqn)
                self.apart.add(norm.y)
                stages.append(Stage(norm, [], []))
                continue
            if differs:
                self.apart.update(eqn.outvars)
                require(
                    not any(across(sub, (NORM,)) for sub in jaxprs.sub_jaxprs(eqn)),
                    "make_step",
                    "with accumulate, each batch norm by itself in the network",
                    f"one inside {jaxprs.label(eqn)}",
                    "Write the blocks one after the other, not by fn.repeat, or take accumulate=1.",
                )
            (stages[-1].each if differs else stages[-1].once).append(eqn)
        return stages

    def _of_each(self, eqn: Any) -> bool:
        """Whether a batch norm is under `jax.vmap` over the examples, as instance norm is.

        Raises:
            ValueError: If it is over something else.
        """
        x, *rest = (v.aval for v in eqn.invars[jaxprs.closed_over(eqn) :])
        mean = eqn.outvars[1].aval
        if mean.shape == x.shape[-1:]:
            return False
        affine = [kind for kind in rest if kind.dtype != bool]
        kinds: list[Any] = [v.aval for v in self.jaxpr.invars if v in self.apart]
        sizes = {kind.shape[:1] for kind in kinds if kind.shape}
        require(
            mean.shape[:1] in sizes and not any(kind.ndim > 1 for kind in affine),
            "make_step",
            "with accumulate, no batch norm under jax.vmap",
            f"one of mean {mean.shape} over {x.shape}",
            "Take accumulate=1, or fn.GroupNorm, which looks at each example alone.",
        )
        return True

    def _later(self) -> list[set[Any]]:
        """For each stage the variables that are read after it."""
        wanted = set(filter(jaxprs.is_var, self.jaxpr.outvars))
        found = []
        for stage in reversed(self.stages):
            found.append(set(wanted))
            eqns = [*stage.once, *stage.each]
            wanted |= {v for eqn in eqns for v in filter(jaxprs.is_var, eqn.invars)}
            wanted |= set(filter(None, stage.norm[:4])) if stage.norm else set()
        return found[::-1]

    def results(self, env: dict) -> list[tuple[Any, bool]]:
        """The results, each with whether it is stacked."""

        def result(atom: Any) -> tuple[Any, bool]:
            if jaxprs.is_var(atom):
                return env[atom], atom in self.apart
            return atom.val, False

        return [result(atom) for atom in self.jaxpr.outvars]

    def run_stage(self, i: int, env: dict) -> None:
        """Run stage i for all micro-batches, its norm's statistics being there."""
        stage, later = self.stages[i], self.later[i]
        if stage.once:
            read = _read(stage.once)
            made = [v for eqn in stage.once for v in eqn.outvars if not jaxprs.is_dropped(v)]
            found = jaxprs.evaluate(jaxpr_of(read, made, stage.once), *(env[v] for v in read))
            env.update(zip(made, found, strict=True))
        norm, body = stage.norm, self._body(stage, later)
        if body is None:
            return
        read, made, run = body
        stacked = {v: env[v] for v in read if v in self.apart}
        plain = {v: env[v] for v in read if v not in self.apart}
        own = [v for v in (norm.mean, norm.var) if v in env] if norm else []
        plain |= {v: env[v] for v in own}

        def whole(stacks: list, others: list) -> list:
            known = dict(zip(plain, others, strict=True))

            def one(_: None, slices: list) -> tuple[None, list]:
                return None, run(dict(zip(stacked, slices, strict=True)) | known)

            return jax.lax.scan(jax.checkpoint(one, prevent_cse=False), None, stacks)[1]

        # Checkpointed as a whole too: a scan alone would keep copies of what it takes apart.
        found = jax.checkpoint(whole)(list(stacked.values()), list(plain.values()))
        env.update(zip(made, found, strict=True))

    def _body(self, stage: Stage, later: set) -> tuple[list, list, Callable] | None:
        """What a stage reads and makes for one micro-batch, and the function that makes it."""
        norm = stage.norm
        own = [norm.y] if norm else []
        made = [v for v in (*own, *(v for e in stage.each for v in e.outvars)) if v in later]
        if not made:
            return None
        read = _read(stage.each)
        needs = [v for v in read if v not in own]
        if norm:
            parts = (v for v in norm[:4] if v is not None and jaxprs.is_var(v))
            needs = list(dict.fromkeys((*needs, *parts)))
        computed = [v for v in made if v not in own]
        closed = jaxpr_of(read, computed, stage.each)

        def run(env: dict) -> list:
            if norm:
                env = env | {norm.y: _normalised(norm, env)}
            found = jaxprs.evaluate(closed, *(env[v] for v in read)) if computed else []
            env = env | dict(zip(computed, found, strict=True))
            return [env[v] for v in made]

        return needs, made, run


def run(programs: Sequence[Program]) -> list[list[tuple[Any, bool]]]:
    """The results of each program, where those of batch norm are of all their micro-batches."""
    count = len(programs[0].stages)
    require(
        all(len(program.stages) == count for program in programs),
        "make_step",
        "with accumulate, as many batch norms whatever the number of examples",
        " and ".join(str(len(program.stages) - 1) for program in programs),
        "Give batches whose length accumulate divides.",
    )
    envs = [dict(program.values) for program in programs]
    for i in range(count):
        _take_statistics(programs, envs, i)
        for program, env in zip(programs, envs, strict=True):
            program.run_stage(i, env)
    return [program.results(env) for program, env in zip(programs, envs, strict=True)]


def _take_statistics(programs: Sequence[Program], envs: list[dict], i: int) -> None:
    """The mean and variance of all micro-batches at the norm of stage i."""
    found = [(p, p.stages[i].norm, env) for p, env in zip(programs, envs, strict=True)]
    if found[0][1] is None:
        return
    rows = [_rows(program, norm, env, len(found) > 1) for program, norm, env in found if norm]
    x, where = rows[0]
    if len(rows) > 1:
        x = jax.numpy.concatenate([x for x, _ in rows])
        where = None if where is None else jax.numpy.concatenate([where for _, where in rows])
    _, mean, var = batch_norm(x, None, None, where, eps=found[0][1].eps)
    for _, norm, env in found:
        assert norm is not None
        env[norm.mean], env[norm.var] = mean, var


def _rows(program: Program, norm: Norm, env: dict, flat: bool) -> tuple[Any, Any]:
    """What goes into a norm, of all micro-batches of a program, and its mask; flat as rows."""
    x, where = env[norm.x], None if norm.where is None else env[norm.where]
    if where is not None and norm.where in program.apart:
        where = where.reshape(len(x), *(1,) * (x.ndim - where.ndim), *where.shape[1:])
    if not flat and norm.x in program.apart and not jax.sharding.get_abstract_mesh().empty:
        # Devices hold examples of each micro-batch: rows with these first stay where they are.
        if where is not None:
            where = jax.numpy.expand_dims(where, range(x.ndim - where.ndim)).swapaxes(0, 1)
        x = x.swapaxes(0, 1)
    if flat:
        where = None if where is None else jax.numpy.broadcast_to(where, x.shape)
        x, where = (None if v is None else v.reshape(-1, x.shape[-1]) for v in (x, where))
    return x, where


def _normalised(norm: Norm, env: dict) -> Array:
    scale, shift, where = (None if v is None else env[v] for v in norm[1:4])
    x = env[norm.x]
    mean, var = env[norm.mean], env[norm.var]
    return masked(normalize(masked(x, where), mean, var, scale, shift, eps=norm.eps), where)


def _norm(eqn: Any) -> Norm:
    """What an equation of `batch_norm` reads and makes."""
    y, mean, var = eqn.outvars
    x, *rest = eqn.invars[jaxprs.closed_over(eqn) :]
    where = rest.pop() if rest and rest[-1].aval.dtype == bool else None
    first = jaxprs.open_jaxpr(jaxprs.custom_body(eqn))[0].invars[1:2]
    eps = (runs.rule_options(eqn) or {})["eps"]
    shifts = len(rest) == 1 and _is_added(eqn, first[0])
    scale, shift = (None, *rest) if shifts else (*rest, None, None)[:2]
    return Norm(x, scale, shift, where, eps, y, mean, var)


def _is_added(eqn: Any, var: Any) -> bool:
    """Whether an operand of a rule is first added to something, once it is broadcast."""
    for step in jaxprs.open_jaxpr(jaxprs.custom_body(eqn))[0].eqns:
        if var in filter(jaxprs.is_var, step.invars):
            if step.primitive.name in ("add", "mul"):
                return step.primitive.name == "add"
            var = step.outvars[0]
    return False


def _called(eqn: Any) -> Any:
    """The body of a call that holds a batch norm."""
    inside = jaxprs.structure(eqn)
    if isinstance(inside, jaxprs.Call) and across(inside.body, (NORM,)):
        return jaxprs.close(inside.body)
    return None


def _read(eqns: Sequence[Any]) -> list[Any]:
    made = {v for eqn in eqns for v in eqn.outvars}
    read = dict.fromkeys(v for eqn in eqns for v in filter(jaxprs.is_var, eqn.invars))
    return [v for v in read if v not in made]
