"""What every verdict is: a record that prints as text and makes a page."""

from collections.abc import Sequence

from ..render import text
from ..render.forms import Table
from ..render.html import frame
from ..render.sheet import sheet


class Report:
    """A verdict. It says what it is called and what it consists of; text and page follow.

    >>> class Count(Report):
    ...     heading = "count"
    ...     def parts(self):
    ...         return ["12 equations."]
    >>> print(Count())
    12 equations.
    """

    @property
    def heading(self) -> str:
        """What stands above its page: "cost of loss"."""
        return type(self).__name__

    def parts(self) -> Sequence[Table | str]:
        """What it has to say, in order: tables, and paragraphs of text."""
        raise NotImplementedError(f"{type(self).__name__} has no parts.")

    def __str__(self) -> str:
        shown = (text.table(part) if isinstance(part, Table) else part for part in self.parts())
        return "\n\n".join(shown)

    def html(self) -> str:
        """One page with everything in it: it needs no network. Write it to a file and open it."""
        return sheet(self.heading, self.parts())

    def _repr_html_(self) -> str:
        return frame(self.html())
