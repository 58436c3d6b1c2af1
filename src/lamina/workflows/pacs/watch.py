"""Watch: segment each new series of an archive that a rule means, and store what was found."""

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.errors import ConfigError
from lamina.files import locked, sha256
from lamina.folders.bundle import find_bundle
from lamina.folders.model import Model, load
from lamina.io.pacs import Access, Archive, WebArchive, address_of, archive_at
from lamina.workflows.pacs.loop import Pace, Tell, Watcher
from lamina.workflows.pacs.rule import Rule
from lamina.workflows.pacs.state import STORED, Entry, State, read_state
from lamina.workflows.pacs.transfer import web_archive
from lamina.workflows.steps.output import OBJECTS, Output, output_of
from lamina.workflows.steps.quality import CheckedModel


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a loop knows of all its series."""

    entries: tuple[Entry, ...]
    tried: frozenset[int] = frozenset()
    """Numbers of the series that were just worked on."""

    @property
    def failures(self) -> dict[str, str]:
        """Name of each series that was tried in vain -> why."""
        return {
            f"series {entry.number}": entry.reason
            for entry in self.entries
            if entry.number in self.tried and entry.status != STORED
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        series = [asdict(entry) for entry in self.entries]
        return {"failures": self.failures, "series": series, "tried": sorted(self.tried)}


def watch(
    model: str | Path,
    url: str,
    state: str | Path,
    rule: Rule,
    *,
    access: Access,
    pace: Pace,
    output_format: str = "seg",
    store_url: str | None = None,
    store_access: Access | None = None,
    anonymise: bool = False,
    once: bool = False,
    retry_failed: bool = False,
    tell: Tell,
    **loading: Any,
) -> Watch:
    """Segment each new series that a rule means, and store what was found; see :class:`Watcher`.

    Args:
        model: A ``.lamina`` file, a run folder or the name of a model that comes along; of one
            channel.
        url: Of the archive, which speaks DICOMweb.
        state: Folder that remembers what was done; another run goes on with it.
        rule: Which series are meant.
        access: How to be let in.
        pace: How often and how long.
        output_format: What is made of a series: ``"seg"``, ``"labelmap"`` or ``"rtstruct"``.
        store_url: Where objects go, if not to where the series are.
        store_access: How to be let in there; by default as to ``url``, but without its secret.
            Certificates to trust may be for one of the two addresses alone, if only that one is
            encrypted.
        anonymise: As for :func:`lamina.workflows.predict.predict`.
        once: End when what is there is done, rather than go on.
        retry_failed: Try again what was given up.
        tell: Is told what goes on.
        loading: As for :func:`lamina.folders.model.load`.

    Raises:
        BundleError: The model cannot be loaded.
        ConfigError: A setting is wrong, or the model is not for volumes of one channel, or damaged.
        FileError: The state cannot be written, or another program is at it.
        PacsError: The archive refuses us; with ``once`` also if it does not answer.
    """
    if output_format not in OBJECTS:
        raise ConfigError(
            f"format {output_format!r}: is no DICOM object.", remedy=f"Known: {', '.join(OBJECTS)}."
        )
    archive, target = _archives(url, access, store_url, store_access)
    model, state = Path(model), Path(state)
    bundle = find_bundle(model)
    loaded = load(bundle, **loading)
    _check_fit(model, loaded)
    digest = sha256(bundle)
    output = output_of(output_format, anonymise=anonymise)
    segment = partial(segment_series, CheckedModel.of(loaded), output, digest)
    with locked(state), closing(State(state, output_format)) as table:
        watcher = Watcher(
            archive=archive,
            target=target,
            segment=segment,
            model=digest,
            folder=state,
            state=table,
            rule=rule,
            pace=pace,
            tell=tell,
        )
        if retry_failed:
            table.retry(watcher.clock())
        watcher.once() if once else watcher.forever()
        return Watch(entries=tuple(table.entries()), tried=frozenset(watcher.tried))


def segment_series(
    checked: CheckedModel, output: Output, digest: str, folder: Path, path: Path
) -> tuple[str, ...]:
    """Segment the series in ``folder`` and write a DICOM object of what was found to ``path``.

    Args:
        checked: The model.
        output: Form of the object.
        digest: SHA-256 of the model, which the object tells.
        folder: Holds the slices.
        path: File to write.

    Returns:
        In what way the scan is unlike those of training, a sentence each.

    Raises:
        LaminaError: The series cannot be read, or does not fit the model.
    """
    plan = checked.predictor.plan
    case = Case(case_id=folder.name, group="", images=(folder,))
    output.check(case, plan.labels)
    found, quality = checked.segment(case.read_image(plan.channels))
    output.write(found, case, plan.labels, digest, path)
    return tuple(flag["text"] for flag in quality["flags"] or ())


def _archives(
    url: str, access: Access, store_url: str | None, store_access: Access | None
) -> tuple[WebArchive, Archive]:
    """Return where series come from, and where objects go."""
    if store_url is None:
        if store_access and store_access.secret:
            raise ConfigError(
                "--store-secret: needs --store-url, which says whom it is told to.",
                remedy="Objects go to --url, which is told --user and --secret.",
            )
        archive = web_archive(url, access)
        return archive, archive
    there = store_access or replace(access, user="", secret="")
    encrypted = address_of(url).is_encrypted, address_of(store_url).is_encrypted
    if encrypted == (False, True):
        access = replace(access, ca=None)
    elif encrypted == (True, False):
        there = replace(there, ca=None)
    return web_archive(url, access), archive_at(store_url, there)


def _check_fit(path: Path, model: Model) -> None:
    plan = model.bundle.plan
    if plan.spatial_dims != 3:
        raise ConfigError(f"{path}: segments pictures, and a series is a volume.")
    if len(plan.channels) != 1:
        raise ConfigError(f"{path}: needs {len(plan.channels)} channels, and a series has one.")


def status(state: str | Path) -> Watch:
    """Return what a loop knows, though it may be running.

    Raises:
        FileError: The folder is not a loop's.
    """
    return Watch(entries=tuple(read_state(Path(state))))
