"""A printed table that a narrow terminal gets in blocks, one below the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table

LONGEST_NAME = 20
"""Characters beyond which even a word of a row's name is broken, where there is too little room."""

_UNLIMITED = 10_000


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """As many columns of figures side by side as fit; each block begins with the rows' names."""

    make: Callable[[range, int | None], Table]
    """Returns the table of some of the columns of figures, by their places; the second argument is
    the most characters of a row's name that stand in a line, ``None`` for all."""
    num_columns: int
    names: Sequence[str]
    """Of the rows."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield one table or more, none wider than the terminal while a single column is not."""

        def fits(table: Table) -> bool:
            room = options.update_width(_UNLIMITED)
            return Measurement.get(console, room, table).maximum <= options.max_width

        whole = self.make(range(self.num_columns), None)
        if fits(whole):
            yield whole
            return
        longest = max((len(word) for name in self.names for word in name.split()), default=1)
        limit, start = min(longest, LONGEST_NAME), 0
        while start < self.num_columns:
            stops = range(self.num_columns, start, -1)
            stop = next((n for n in stops if fits(self.make(range(start, n), limit))), start + 1)
            yield self.make(range(start, stop), None)
            start = stop
