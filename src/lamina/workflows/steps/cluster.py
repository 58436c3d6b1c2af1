"""Scans segmented on a cluster, each by itself in a hidden folder of the output."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from lamina.data.case import Case
from lamina.errors import LaminaError
from lamina.folders.prediction import Outcome, read_record
from lamina.workflows import no_progress
from lamina.workflows.steps.batch import Batch, own_folder
from lamina.workflows.steps.fan_out import spread


@dataclass(frozen=True)
class Cluster:
    """A cluster, and how a batch comes to be there."""

    address: str
    """As for :func:`~lamina.workflows.steps.fan_out.run_jobs`."""
    make: Callable[[], Batch]
    """Makes the batch anew in another process, and loads its model there; picklable."""

    def __call__(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Outcome | LaminaError]]:
        """Yield every case with what became of it; its files lie in its :func:`own_folder`."""
        yield from spread(partial(_alone, self.make), cases, workers=0, cluster=self.address)


def _alone(make: Callable[[], Batch], case: Case) -> Outcome:
    """Segment a case; once, however often it is asked for."""
    batch = _made(make)
    folder = own_folder(batch.out, case)
    earlier = read_record(folder)["cases"]
    (outcome,) = replace(batch, out=folder, resume=True).run([case], [], earlier, no_progress)
    return outcome


@cache
def _made(make: Callable[[], Batch]) -> Batch:
    return make()
