"""The verbs of DAI-Net's first stage: a transformer, and its attention maps of every slice."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from lamina.cli.options import OUT, Config, Device, Work
from lamina.cli.program import MODELS, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, spoken
from lamina.cli.watch import on_bar

if TYPE_CHECKING:
    from lamina.training.dino import DINOReport
    from lamina.workflows.attention_maps import Mapped
    from lamina.workflows.pretrain import Pretraining


@verb("lamina pretrain work --out vit --small --time-budget 2h", panel=MODELS)
def pretrain(
    terminal: Terminal,
    work: Work,
    out: Annotated[Path, typer.Option(*OUT, help="Folder to write.")],
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Transformer to begin from: import-weights or pretrain wrote it."
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Fold whose training scans are taken; 0 by default.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Smaller views and batches, for a CPU.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Length of the run; 800, or 100 with --small.")
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Length of the run by the clock: 2h."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    config: Config = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="One setting, such as views.multicrop=true."),
    ] = None,
) -> None:
    """Train a vision transformer on the slices of prepared scans, without their labels (DINO).

    Ctrl-C stops after the current step with a usable transformer; --resume goes on from there.
    """
    from lamina.cli.settings import settings_from
    from lamina.config import layered
    from lamina.training.dino_config import SMALL
    from lamina.workflows import pretrain as workflow

    flags = {"epochs": epochs, "time_budget_s": time_budget, "seed": seed, "device": device}
    settings = layered(
        SMALL if small else {},
        {"epochs": None} if small and time_budget else {},
        settings_from(config=config, flags=flags, overrides=set_),
    )
    with terminal.bar() as show:
        result = workflow.pretrain(
            work,
            out,
            settings,
            start=start,
            fold=fold,
            resume=resume,
            progress=show,
            **on_bar(show, _features),
        )
    terminal.result(result.as_dict(), *_pretrained(result, work))


@verb("lamina attention-maps work --vit vit", panel=MODELS)
def attention_maps(
    terminal: Terminal,
    work: Work,
    vit: Annotated[
        Path, typer.Option(help="Folder that pretrain wrote, or file of import-weights.")
    ],
    size: Annotated[
        int, typer.Option(min=1, help="Sides in pixels at which the transformer sees a slice.")
    ] = 256,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Interpolate between tokens instead of squares.")
    ] = False,
    device: Device = None,
) -> None:
    """Keep a transformer's attention maps beside the prepared scans, for DAI-Net to read."""
    from lamina.workflows.attention_maps import draw_maps

    with terminal.bar() as progress:
        result = draw_maps(
            work,
            vit,
            size=size,
            upsample="bilinear" if smooth else "nearest",
            device=device,
            progress=progress,
        )
    terminal.result(result.as_dict(), *_mapped(result))


def _features(report: "DINOReport") -> str:
    return f"features differ {report.feature_std:.2f}  {report.collapse and 'collapsed'}"


def _pretrained(result: "Pretraining", work: Path) -> tuple[str, ...]:
    """Say what a run reached, how far it is from collapse, and what comes next."""
    why = f", stopped: {result.stopped_because}" if result.stopped_because else ""
    last = result.last_epoch
    measured = (
        f"Last epoch: loss {last['loss']:.3f}, entropy {last['entropy']:.2f} of 1, of the mean "
        f"{last['mean_entropy']:.2f} of 1, KL {last['kl']:.3f}, features differ "
        f"{last['feature_std']:.2f} of 1"
        if last
        else "No epoch was finished."
    )
    return (
        f"{result.epochs} epochs on {result.slices:,} slices; {spoken(result.seconds)}{why}",
        measured,
        f"Transformer: {result.vit}",
        f"Next: lamina attention-maps {quote(str(work))} --vit {quote(str(result.out))}",
    )


def _mapped(result: "Mapped") -> tuple[str, ...]:
    """Say how many scans have maps, whose maps they are, and what comes next."""
    kept = f", {result.kept} had theirs already" if result.kept else ""
    scratch = ["They are of a transformer that has seen nothing but these scans."]
    return (
        f"{result.num_heads} maps a slice drawn of {result.drawn} scans{kept}",
        *(scratch if result.from_scratch else []),
        f"Next: lamina train {quote(str(result.work))} --model dainet --out RUN",
    )
