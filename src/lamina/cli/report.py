"""The verbs that show results: a page for people, surfaces for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.options import OUT
from lamina.cli.program import RESULTS, verb
from lamina.cli.terminal import Terminal


@verb("lamina report run -o report.html", panel=RESULTS)
def report(
    terminal: Terminal,
    place: Annotated[
        Path, typer.Argument(metavar="RUN|EVAL", help="Folder that train or evaluate wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(*OUT, help="The page; report.html in the folder by default."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Of a run: show this evaluation instead of its validation scans."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Table of the scores for a paper.")] = None,
    latex: Annotated[Path | None, typer.Option(help="The same for LaTeX.")] = None,
    pdf: Annotated[Path | None, typer.Option(help="The charts for print.")] = None,
) -> None:
    """Write one page about a run or an evaluation, to be opened in any browser."""
    from lamina.workflows import report as workflow

    with terminal.bar() as progress:
        result = workflow.report(
            place,
            out,
            scores=scores,
            markdown=markdown,
            latex=latex,
            pdf=pdf,
            progress=progress,
        )
    shown = (f"Report: {result.page}", *map(str, result.others))
    terminal.result(result.as_dict(), *shown)


@verb("lamina mesh liver.nii.gz -o liver.glb", panel=RESULTS)
def mesh(
    terminal: Terminal,
    segmentation: Annotated[Path, typer.Argument(metavar="SEG", help="Label map of a volume.")],
    out: Annotated[Path, typer.Option(*OUT, help="A .glb, .obj or .stl file.")],
    structure: Annotated[
        list[str] | None, typer.Option(help="Only this structure; may be given again.")
    ] = None,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Take the steps of the voxels away.")
    ] = False,
    faces: Annotated[
        int | None, typer.Option(min=4, help="Triangles per structure; all by default.")
    ] = None,
    lps: Annotated[
        bool, typer.Option("--lps", help="Axes to left, back and head, as in DICOM, not RAS.")
    ] = False,
) -> None:
    """Turn a segmentation into closed surfaces in patient millimetres, RAS by default."""
    from lamina.workflows import mesh as workflow

    result = workflow.mesh(
        segmentation,
        out,
        structures=structure,
        smooth=smooth,
        max_faces=faces,
        space="LPS" if lps else "RAS",
    )
    shown = [
        f"{surface.name}: {len(surface.faces):,} triangles around {surface.volume_ml:.4g} ml"
        for surface in result.surfaces
    ]
    where = [f"Surfaces in mm, {result.space}: {file}" for file in result.files]
    terminal.result(result.as_dict(), *shown, *where)
