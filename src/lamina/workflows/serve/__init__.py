"""Serve: offer models to a page, to programs and to 3D Slicer."""

import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lamina.bundle import load_bundle, model_card
from lamina.data.workers import num_cores
from lamina.errors import BundleError, ConfigError, DatasetError, FileError
from lamina.export.backends import cache_folder
from lamina.folders.run import BUNDLE
from lamina.pretrained import FOLDER
from lamina.report.structures import describe_labels
from lamina.serve.app import create_app
from lamina.serve.schemas import Label, Model
from lamina.serve.server import run
from lamina.serve.settings import Settings
from lamina.workflows.serve.segmenter import Segmenter

log = logging.getLogger(__name__)

_TOKEN_BYTES = 24


def serve(
    models: str | Path | None,
    tell: Callable[[str], None],
    *,
    data: str | Path,
    token: str | None = None,
    loading: Mapping[str, Any] = {},
    **settings: Any,
) -> None:
    """Serve models until told to stop.

    Args:
        models: Folder of ``.lamina`` files and of run folders, or one of them; ``None``: those that
            come with the package.
        tell: Told the address to open, with its token, once it can be reached.
        data: Folder of the queue and its files; nobody else may read it.
        token: What clients prove themselves with; ``None`` makes one up, ``""`` asks for none.
        loading: Options of :func:`~lamina.folders.model.load`, in every worker.
        settings: Further fields of :class:`~lamina.serve.settings.Settings`.

    Raises:
        DatasetError: There is no model.
        ConfigError: A setting makes no sense, or the address cannot be listened on.
        FileError: The folder of the queue cannot be written, or another server uses it.
    """
    if token is None:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
    known = Settings(data=Path(data), token=token or None, **settings)
    found = find_models(Path(models or FOLDER))
    files = {name: file for name, (file, _) in found.items()}
    threads = max(1, num_cores() // known.workers)
    make_job = partial(Segmenter, files, threads=threads, **loading)
    offered = {name: model for name, (_, model) in found.items()}
    run(create_app(known, offered, make_job), known, tell)


def find_models(models: Path) -> dict[str, tuple[Path, Model]]:
    """Return the files of models in a folder, and what is told of them, by name of file or run.

    What is damaged is left out with a warning.

    Raises:
        DatasetError: There is none.
    """
    if models.is_file():
        candidates = {models.stem: models}
    elif (models / BUNDLE).is_file():
        candidates = {models.resolve().name: models / BUNDLE}
    else:
        runs = {file.parent.name: file for file in sorted(models.glob(f"*/{BUNDLE}"))}
        candidates = runs | {file.stem: file for file in sorted(models.glob("*.lamina"))}
    found = {}
    for name, file in candidates.items():
        try:
            found[name] = file.resolve(), _described(name, file)
        except BundleError as error:
            log.warning("%s is left out: %s", file.name, error)
    if not found:
        raise DatasetError(
            f"{models}: holds no model.", remedy="Give a folder of .lamina files or of runs."
        )
    return found


def data_folder() -> Path:
    """Return where the queue is kept unless a folder is named."""
    return cache_folder() / "serve"


def read_token(given: str | None, file: Path | None, *, no_token: bool = False) -> str | None:
    """Return the token as :func:`serve` takes it.

    Args:
        given: The token itself.
        file: Where it stands.
        no_token: Whether there is to be none.

    Raises:
        ConfigError: More than one of them is given, or it is empty.
        FileError: The file cannot be read.
    """
    if (given is not None) + (file is not None) + no_token > 1:
        raise ConfigError("Give one of --token, --token-file and --no-token.")
    if no_token:
        return ""
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise FileError(f"{file}: cannot be read as a token: {error}.") from error
    if given == "":
        raise ConfigError("token: is empty.", remedy="Use --no-token to go without.")
    return given


def _described(name: str, file: Path) -> Model:
    """Return what is told of a model."""
    bundle = load_bundle(file)
    card = model_card(bundle)
    return Model(
        name=name,
        title=card.partition("\n")[0].removeprefix("# "),
        card=card,
        labels=[Label(**each) for each in describe_labels(bundle.plan.labels)],
        channels=list(bundle.plan.channels),
        spatial_dims=bundle.plan.spatial_dims,
        unit=bundle.plan.unit,
        network=bundle.network["name"],
        size_bytes=file.stat().st_size,
        scores=bundle.metrics or None,
    )
