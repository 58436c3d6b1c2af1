"""Serve: offer models to a page, to programs and to 3D Slicer."""

import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
    device: str | None = None,
    backend: str = "torch",
    precision: Literal["fp32", "bf16"] = "fp32",
    resample_oblique: bool = False,
    tta: bool = False,
    ram_bytes: float | None = None,
    **settings: Any,
) -> None:
    """Serve models until told to stop.

    Args:
        models: Folder of ``.lamina`` files and of run folders, or one of them; ``None``: those that
            come with the package.
        tell: Told the address to open, with its token, once it can be reached.
        data: Folder of the queue and its files; nobody else may read it.
        token: What clients prove themselves with; ``None`` makes one up, ``""`` asks for none.
        device: As for :func:`~lamina.folders.model.load`, like the next five, in every worker.
        backend: See there.
        precision: See there.
        resample_oblique: See there.
        tta: See there.
        ram_bytes: See there.
        settings: Further fields of :class:`~lamina.serve.settings.Settings`.

    Raises:
        DatasetError: There is no model.
        ConfigError: A setting makes no sense, or the address cannot be listened on.
        FileError: The folder of the queue cannot be written, or another server uses it.
    """
    if token is None:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
    known = Settings(data=Path(data), token=token or None, **settings)
    files = find_models(Path(models or FOLDER))
    make_job = partial(
        Segmenter,
        files,
        device=device,
        backend=backend,
        precision=precision,
        resample_oblique=resample_oblique,
        tta=tta,
        ram_bytes=ram_bytes,
        threads=max(1, num_cores() // known.workers),
    )
    offered = {name: described(name, file) for name, file in files.items()}
    run(create_app(known, offered, make_job), known, tell)


def find_models(models: Path) -> dict[str, Path]:
    """Return the models in a folder, by the names of their files or run folders.

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
    sound = {name: file.resolve() for name, file in candidates.items() if _is_sound(file)}
    if not sound:
        raise DatasetError(
            f"{models}: holds no model.", remedy="Give a folder of .lamina files or of runs."
        )
    return sound


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


def described(name: str, file: Path) -> Model:
    """Return what is told of a model.

    Raises:
        BundleError: It is damaged.
    """
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


def _is_sound(file: Path) -> bool:
    try:
        load_bundle(file)
    except BundleError as error:
        log.warning("%s is left out: %s", file.name, error)
        return False
    return True
