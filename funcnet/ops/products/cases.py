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
EINSUM = {
    "heads": normal_case((2, 3, 4), (4, 2, 5), equation="btd,dhk->bthk"),
    "merged heads": normal_case((2, 3, 2, 5), (2, 5, 4), equation="bthk,hkd->btd"),
    "a weight for each group": normal_case((3, 2, 4), (2, 4, 5), equation="ngi,gio->ngo"),
    "turned": normal_case((4, 3), (5, 4), equation="ij,ki->jk"),
    "summed alone": normal_case((2, 3, 4), (4, 5), equation="abc,cd->a"),
    "outer": normal_case((3,), (4,), equation="i,j->ij"),
    "number": normal_case((3,), (3,), equation="i,i->"),
    "no rows": normal_case((0, 3), (3, 4), equation="ni,io->no"),
}
GATED = {
    "rows": normal_case((5, 3), (3, 4), (3, 4), (4, 3)),
    "sequence": normal_case((2, 3, 2), (2, 4), (2, 4), (4, 3)),
    "one row": normal_case((3,), (3, 4), (3, 4), (4, 2)),
    "no rows": normal_case((0, 3), (3, 4), (3, 4), (4, 3)),
}
