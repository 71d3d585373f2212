"""What proves the products."""

from numpy.random import Generator

from ...rules.rule import Case, normal_case


def _ids(*shape: int) -> Case:
    def make(random: Generator) -> tuple:
        return random.standard_normal((7, 3)), random.integers(0, 7, shape)

    return Case(make)


DENSE = {
    "rows": normal_case((5, 3), (3, 4), (4,)),
    "one row": normal_case((3,), (3, 4), (4,)),
    "sequence": normal_case((2, 5, 3), (3, 4), (4,)),
    "no bias": normal_case((5, 3), (3, 4), None),
    "no rows": normal_case((0, 3), (3, 4), (4,)),
    "no features": normal_case((2, 0), (0, 4), (4,)),
}
EMBED = {"sequence": _ids(2, 9), "one": _ids(), "none": _ids(0)}


def _several(*shapes: tuple[int, ...], equation: str) -> Case:
    """A case of more than two operands, those after the second in a tuple."""

    def make(random: Generator) -> tuple:
        x, w, *more = (random.standard_normal(shape) for shape in shapes)
        return x, w, tuple(more)

    return Case(make, {"equation": equation})


EINSUM_OF_TWO = {
    "heads": normal_case((2, 3, 4), (4, 2, 5), None, equation="btd,dhk->bthk"),
    "merged heads": normal_case((2, 3, 2, 5), (2, 5, 4), None, equation="bthk,hkd->btd"),
    "a weight for each group": normal_case((3, 2, 4), (2, 4, 5), None, equation="ngi,gio->ngo"),
    "turned": normal_case((4, 3), (5, 4), None, equation="ij,ki->jk"),
    "summed alone": normal_case((2, 3, 4), (4, 5), None, equation="abc,cd->a"),
    "outer": normal_case((3,), (4,), None, equation="i,j->ij"),
    "number": normal_case((3,), (3,), None, equation="i,i->"),
    "no rows": normal_case((0, 3), (3, 4), None, equation="ni,io->no"),
}
EINSUM = EINSUM_OF_TWO | {
    "trace of a product": normal_case((2, 3), (3, 4), (4, 2), equation="ij,jk,ki->"),
    "chain": _several((2, 5), (5, 4), (4, 3), (3, 2), equation="ij,jk,kl,lm->im"),
    "shared": _several((3, 2), (3, 4), (3, 5), equation="nr,ns,nt->rst"),
    "apart": _several((2,), (3, 2), (4, 3), equation="i,jk,lj->il"),
    "no columns": _several((2, 3), (3, 0), (0, 4), equation="ij,jk,kl->il"),
    "sum": normal_case((2, 3, 4), None, None, equation="abc->ca"),
    "sum of all": normal_case((2, 3), None, None, equation="ab->"),
    "turn": normal_case((2, 3, 4), None, None, equation="abc->cab"),
}
GATED = {
    "rows": normal_case((5, 3), (3, 4), (3, 4), (4, 3)),
    "sequence": normal_case((2, 3, 2), (2, 4), (2, 4), (4, 3)),
    "one row": normal_case((3,), (3, 4), (3, 4), (4, 2)),
    "no rows": normal_case((0, 3), (3, 4), (3, 4), (4, 3)),
}
