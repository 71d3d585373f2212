"""Formulas and tables as LaTeX, for a lecture."""

import re
from collections.abc import Sequence

FUNCTIONS = {
    "log": "\\ln", "exp": "\\exp", "sin": "\\sin", "cos": "\\cos", "tan": "\\tan",
    "tanh": "\\tanh", "max": "\\max", "min": "\\min", "sum": "\\sum",
}  # fmt: skip

TOKEN = re.compile(
    r"(?P<row>\b[vc]-?\d+(?:\.\d+)?(?:\[[\d,:]+\])*'?)|(?P<word>[A-Za-z_][\w.]*)"
    r"|(?P<sign>ᵀ|\*|@|<=|>=|!=|==|%|&|#|\$)|(?P<power>(?<=\^)-?[\d.]+(?:e[+-]?\d+)?)"
)

SPECIAL = {
    **{c: f"\\{c}" for c in "_#$%&{}"},
    "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}", "<": "\\textless{}",
    ">": "\\textgreater{}",
}  # fmt: skip


def plain(words: str) -> str:
    """Words as text, what LaTeX has another use for written out."""
    return "".join(SPECIAL.get(c, c) for c in words)


def text(words: str) -> str:
    """Plain text inside of a formula: a simple name with a number becomes a subscript."""
    match = re.fullmatch(r"([A-Za-z])_?(\d+)", words)
    if match:
        return f"{match[1]}_{{{match[2]}}}"
    return words if re.fullmatch("[A-Za-z]", words) else f"\\texttt{{{plain(words)}}}"


def math(formula: str) -> str:
    """A formula of a trace as LaTeX: `v2' * v-1` as `\\bar{v}_{2} v_{-1}`.

    >>> print(math("v3' * cos(v0)"))
    \\bar{v}_{3} \\cos(v_{0})
    """
    return _raised(TOKEN.sub(_token, formula))


def _raised(written: str) -> str:
    """The whole bracket after a ^ raised, not its first sign alone."""
    before, power, rest = written.partition("^(")
    if not power:
        return written
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return f"{before}^{{({_raised(rest[:end])}}}{_raised(rest[end:])}"


def _token(match: re.Match[str]) -> str:
    written = _written(match)
    above = match.string[: match.start()].endswith("^")
    return f"{{{written}}}" if above else written


def _written(match: re.Match[str]) -> str:
    if match["power"]:
        return match["power"]
    if match["row"]:
        name = match["row"]
        bar = name.endswith("'")
        index = name.rstrip("'")[1:]
        letter = f"\\bar{{{name[0]}}}" if bar else name[0]
        return f"{letter}_{{{index}}}"
    if match["sign"]:
        signs = {"ᵀ": "^{\\top}", "*": "", "@": "", "<=": "\\le", ">=": "\\ge", "!=": "\\ne",
                 "==": "=", "%": "\\bmod", "&": "\\wedge", "#": "\\#", "$": "\\$"}  # fmt: skip
        return signs[match["sign"]]
    word = match["word"]
    if word in FUNCTIONS:
        return FUNCTIONS[word]
    escaped = word.replace("_", "\\_")
    return word if len(word) == 1 else f"\\operatorname{{{escaped}}}"


def value(shown: str) -> str:
    """A value of a table: a number as it is, words as text."""
    power = re.fullmatch(r"(-?[\d.]+)e([+-]?\d+)", shown)
    if power:
        return f"{power[1]} \\cdot 10^{{{int(power[2])}}}"
    if re.search("[A-Za-z]", shown):
        return f"\\text{{{plain(shown)}}}"
    return shown


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Rows of formulas as a table with a title, every cell in mathematics."""
    width = max((len(row) for row in rows), default=1)
    head = f"\\multicolumn{{{width}}}{{l}}{{\\textbf{{{title}}}}} \\\\"
    body = [" & ".join(f"${' '.join(cell.split())}$" for cell in row) + " \\\\" for row in rows]
    lines = [f"\\begin{{tabular}}{{@{{}}{'l' * width}@{{}}}}", "\\toprule", head, "\\midrule"]
    return "\n".join([*lines, *body, "\\bottomrule", "\\end{tabular}"])
