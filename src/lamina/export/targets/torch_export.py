"""torch.export: a ``.pt2`` archive that torch runs without the network's source."""

from pathlib import Path
from typing import TYPE_CHECKING

from lamina.export.targets import TARGETS, Graphs, Network, Precision, Target

if TYPE_CHECKING:
    from lamina.bundle import Bundle


def write(bundle: "Bundle", graphs: Graphs, folder: Path) -> None:
    """Write each graph as ``NAME.pt2``."""
    import torch

    from lamina.export.graphs import refusing, traced

    for name, graph in graphs.items():
        program = traced(graph)
        with refusing("torch.export"):
            torch.export.save(program, folder / f"{name}.pt2")


def load(folder: Path, graph: str, threads: int | None, precision: Precision) -> Network:
    """Load ``NAME.pt2``."""
    import torch

    from lamina.export.graphs import of_arrays

    return of_arrays(torch.export.load(folder / f"{graph}.pt2").module(), threads)


TARGETS.register("torch")(
    Target(
        packages=(),
        write=write,
        load=load,
        runs_code=True,
        how_to_run="torch.export.load in Python, on {folder}/model.pt2",
    )
)
