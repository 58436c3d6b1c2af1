"""The verbs that speak with a PACS."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lamina.cli.options import OUT, Backend, Device, Model, RamLimit, ResampleOblique, Tta
from lamina.cli.program import HOSPITAL, app, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, pause

if TYPE_CHECKING:
    from lamina.io.pacs import Access
    from lamina.workflows.pacs.rule import Rule

pacs = typer.Typer(
    help="Series from a PACS, objects to it, and the loop that segments what arrives.",
    no_args_is_help=True,
)
app.add_typer(pacs, name="pacs", rich_help_panel=HOSPITAL)

Url = Annotated[
    str, typer.Option(metavar="URL", help="https://HOST/dicom-web or dicom://AET@HOST:PORT.")
]
WebUrl = Annotated[str, typer.Option("--url", metavar="URL", help="https://HOST/dicom-web.")]
User = Annotated[str, typer.Option(help="Name to log in by; --secret is its password then.")]
Secret = Annotated[
    str,
    typer.Option(metavar="file:PATH|env:NAME", help="Where the password or bearer token is."),
]
Ca = Annotated[Path | None, typer.Option(help="Certificates to trust, PEM.")]
Timeout = Annotated[
    float, typer.Option(parser=duration, metavar="TIME", help="How long an answer is waited for.")
]
TIMEOUT: Any = "60s"
"""Parsed as what is typed is."""
Aet = Annotated[str, typer.Option(help="Our own AE title.")]
RuleFile = Annotated[
    Path | None, typer.Option("--rule", help="YAML file of what --modality to --days say.")
]
Modality = Annotated[list[str] | None, typer.Option(help="Such as CT; may be given again.")]
Description = Annotated[
    list[str] | None, typer.Option(help="Pattern of the series' description: '*abdomen*'.")
]
NotDescription = Annotated[
    list[str] | None, typer.Option(help="Pattern that the description must not match.")
]
BodyPart = Annotated[list[str] | None, typer.Option(help="Pattern of the body part.")]
MinSlices = Annotated[int | None, typer.Option(min=1, help="Least number of slices.")]
MaxSlices = Annotated[int | None, typer.Option(min=1, help="Largest number of slices.")]
Days = Annotated[int | None, typer.Option(min=1, help="Only studies of the last so many days.")]


@verb("lamina pacs echo --url https://pacs.example/dicom-web", group=pacs)
def echo(
    terminal: Terminal,
    url: Url,
    user: User = "",
    secret: Secret = "",
    ca: Ca = None,
    timeout: Timeout = TIMEOUT,
    aet: Aet = "LAMINA",
) -> None:
    """Ask whether an archive answers and lets us in."""
    from lamina.workflows.pacs import transfer

    name = transfer.echo(url, _access(user, secret, ca, timeout, aet))
    terminal.result({"archive": name}, f"{name} answers.")


@verb("lamina pacs pull --url https://pacs.example/dicom-web --modality CT -o scans", group=pacs)
def pull(
    terminal: Terminal,
    url: WebUrl,
    out: Annotated[
        Path, typer.Option(*OUT, help="Folder to write; each series gets its own in it.")
    ],
    study: Annotated[str, typer.Option(help="Only the study with this UID.")] = "",
    series: Annotated[str, typer.Option(help="Only the series with this UID.")] = "",
    patient: Annotated[str, typer.Option(help="Only the patient with this ID.")] = "",
    rule: RuleFile = None,
    modality: Modality = None,
    description: Description = None,
    not_description: NotDescription = None,
    body_part: BodyPart = None,
    min_slices: MinSlices = None,
    max_slices: MaxSlices = None,
    days: Days = None,
    user: User = "",
    secret: Secret = "",
    ca: Ca = None,
    timeout: Timeout = TIMEOUT,
) -> None:
    """Copy series out of an archive, each into a folder of its own."""
    from lamina.cli import pacs_views as views
    from lamina.workflows.pacs import transfer

    with terminal.bar() as progress:
        result = transfer.pull(
            url,
            out,
            _rule(
                rule,
                modality=modality,
                description=description,
                not_description=not_description,
                body_part=body_part,
                min_slices=min_slices,
                max_slices=max_slices,
                days=days,
            ),
            access=_access(user, secret, ca, timeout),
            study=study,
            series=series,
            patient=patient,
            progress=progress,
        )
    terminal.result(result.as_dict(), views.pulled(result))
    terminal.failures(result.failures, "Failed")


@verb("lamina pacs push seg.dcm --url dicom://ORTHANC@pacs.example:4242", group=pacs)
def push(
    terminal: Terminal,
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    url: Url,
    user: User = "",
    secret: Secret = "",
    ca: Ca = None,
    timeout: Timeout = TIMEOUT,
    aet: Aet = "LAMINA",
) -> None:
    """Send DICOM files to an archive."""
    from lamina.workflows.pacs import transfer

    access = _access(user, secret, ca, timeout, aet)
    with terminal.bar() as progress:
        result = transfer.push(url, paths, access=access, progress=progress)
    terminal.result(result.as_dict(), f"{result.stored} objects stored in {result.archive}.")
    terminal.failures(result.failures, "Failed")


@verb(
    "lamina pacs watch -m liver.lamina --url https://pacs.example/dicom-web "
    "--state watched --modality CT",
    group=pacs,
    lasting=True,
)
def watch(
    terminal: Terminal,
    model: Model,
    url: WebUrl,
    state: Annotated[Path, typer.Option(help="Folder that remembers what was done.")],
    rule: RuleFile = None,
    modality: Modality = None,
    description: Description = None,
    not_description: NotDescription = None,
    body_part: BodyPart = None,
    min_slices: MinSlices = None,
    max_slices: MaxSlices = None,
    days: Days = None,
    output_format: Annotated[
        Literal["seg", "labelmap", "rtstruct"], typer.Option("--format", help="What is stored.")
    ] = "seg",
    store_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Archive to store in instead; dicom:// too.")
    ] = None,
    store_user: Annotated[str, typer.Option(help="Name to log in by at --store-url.")] = "",
    store_secret: Annotated[
        str, typer.Option(metavar="file:PATH|env:NAME", help="Where the secret of --store-url is.")
    ] = "",
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Leave the patient out of what is stored.")
    ] = False,
    every: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="From look to look.")
    ] = "30s",  # type: ignore[assignment]
    settle: Annotated[
        float,
        typer.Option(
            parser=pause,
            metavar="TIME",
            help="A series without a new slice for so long is complete.",
        ),
    ] = "60s",  # type: ignore[assignment]
    tries: Annotated[
        int, typer.Option(min=1, help="Attempts after which a series has failed.")
    ] = 3,
    once: Annotated[bool, typer.Option("--once", help="End when what is there is done.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what was given up.")
    ] = False,
    user: User = "",
    secret: Secret = "",
    ca: Ca = None,
    timeout: Timeout = TIMEOUT,
    aet: Aet = "LAMINA",
    ram: RamLimit = None,
    device: Device = None,
    backend: Backend = "torch",
    tta: Tta = False,
    resample_oblique: ResampleOblique = False,
) -> None:
    """Segment each new series of an archive that fits, and store what was found."""
    from lamina.cli import pacs_views as views
    from lamina.workflows.pacs import watch as workflow
    from lamina.workflows.pacs.loop import Pace

    result = workflow.watch(
        model,
        url,
        state,
        _rule(
            rule,
            modality=modality,
            description=description,
            not_description=not_description,
            body_part=body_part,
            min_slices=min_slices,
            max_slices=max_slices,
            days=days,
        ),
        access=_access(user, secret, ca, timeout, aet),
        pace=Pace(every=every, settle=settle, tries=tries),
        output_format=output_format,
        store_url=store_url,
        store_access=_access(store_user, store_secret, ca, timeout, aet),
        anonymise=anonymise,
        once=once,
        retry_failed=retry_failed,
        tell=terminal.tell,
        device=device,
        backend=backend,
        tta=tta,
        ram_bytes=ram,
        resample_oblique=resample_oblique,
    )
    tried = [entry for entry in result.entries if entry.number in result.tried]
    terminal.result(result.as_dict(), *(views.listed(tried) or ("Nothing was to be done.",)))
    terminal.failures(result.failures, "Failed")


@verb("lamina pacs status watched", group=pacs)
def status(
    terminal: Terminal,
    state: Annotated[Path, typer.Argument(help="Folder that watch was given by --state.")],
) -> None:
    """Show what became of each series that watch has seen."""
    from lamina.cli import pacs_views as views
    from lamina.workflows.pacs.watch import status as workflow

    result = workflow(state)
    none = "No series that the rule means has been seen yet."
    terminal.result(result.as_dict(), *(views.listed(result.entries) or (none,)))


def _access(
    user: str, secret: str, ca: Path | None, timeout: float, aet: str = "LAMINA"
) -> "Access":
    from lamina.io.pacs import Access

    return Access(user=user, secret=secret, ca=ca, timeout=timeout, title=aet)


def _rule(file: Path | None, **given: Any) -> "Rule":
    """Return the rule of --rule with the options in its place that are given."""
    from lamina.workflows.pacs.rule import rule_of

    return rule_of(file, given)
