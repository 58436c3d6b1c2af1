"""Runs: what several training runs reached, how far they are, and how their settings differ."""

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from lamina.config import flat, resolve
from lamina.errors import LaminaError, TrainingError
from lamina.folders.run import Kind, RunFolder, read_history
from lamina.training.config import TrainConfig
from lamina.workflows.steps.run_record import plain

_DEPTH = 4
_SILENT_S = 900.0
"""A run on another machine that has written nothing for so long is taken for dead, unless..."""
_PATIENCE = 3
"""...its epochs, or the time between its checkpoints, say that it may be silent for longer."""
_CLOCKS_DIFFER_S = 5.0
_HASH = 8
_CHOICES = ("patch_size", "roi_size", "overlap", "blending", "batch_size", "steps_per_epoch")
_NOT_COMPARED = {*_CHOICES, "epochs", "network", "estimates", "reasons", "given_up"}
"""Of a plan: what settings say too, and what decides nothing."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run."""

    name: str
    path: Path
    network: str
    fold: int
    data: str
    epochs: int
    """Those that were finished."""
    planned_epochs: int | None
    """``None``: the run has a time budget."""
    steps: int
    """Those of the finished epochs."""
    best_dice: float | None
    """Mean foreground Dice of the best epoch; ``None`` before the first."""
    best_epoch: int | None
    """Counted from 0."""
    seconds: float
    waiting: float | None
    """Share of the time spent on steps, 0..1, that went by waiting for patches."""
    state: str
    """``finished``, ``stopped``, ``failed``, ``running`` or ``killed``."""
    why: str
    """Why it stopped or failed."""
    settings: Mapping[str, Any] = field(repr=False)
    """Dotted name -> value of everything that may make two runs differ."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; settings are compared elsewhere."""
        record = asdict(self) | {"path": str(self.path)}
        del record["settings"]
        return record


@dataclass(frozen=True)
class RunTable:
    """Several runs side by side."""

    runs: tuple[RunFacts, ...]
    """Best first among those of the same data and fold."""
    unreadable: Mapping[str, str]
    """Folder -> what is wrong with it."""

    @property
    def differing(self) -> dict[str, dict[str, Any]]:
        """Setting -> run -> value, of the settings that are not the same in all runs.

        A setting that a run does not have is ``None`` there.
        """
        names = dict.fromkeys(name for run in self.runs for name in run.settings)
        table = {name: {r.name: r.settings.get(name) for r in self.runs} for name in names}
        return {name: row for name, row in table.items() if len({*map(as_text, row.values())}) > 1}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "runs": [run.as_dict() for run in self.runs],
            "differing": self.differing,
            "failures": dict(self.unreadable),
        }


def compare_runs(places: Sequence[str | Path]) -> RunTable:
    """Read training runs; one that is damaged is named with its fault and stops no other.

    Args:
        places: Run folders, and folders that hold run folders, at any of a few depths.

    Raises:
        TrainingError: A place does not exist, or there is no run at all.
    """
    runs, unreadable = [], {}
    for name, folder in _named([pair for place in places for pair in _found(Path(place))]).items():
        try:
            runs.append(_read(name, RunFolder(folder)))
        except LaminaError as error:
            unreadable[str(folder)] = error.message
    if not runs and not unreadable:
        where = ", ".join(map(str, places))
        raise TrainingError(
            f"{where}: holds no training run.", remedy="Give folders that train wrote."
        )
    runs.sort(key=lambda run: (run.data, run.fold, -(run.best_dice or 0.0), run.name))
    return RunTable(tuple(runs), unreadable)


def as_text(value: Any) -> str:
    """Return a setting's value as people write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _found(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield short name and folder of the runs in a place, which may be one itself."""
    if not place.is_dir():
        raise TrainingError(f"{place}: no such folder.", remedy="Give folders that train wrote.")
    if _looks_like_run(place) and _kind(place) != "all_folds":
        yield place.resolve().name, place
        return
    for root, folders, _ in os.walk(place):
        here = Path(root)
        inside = here.relative_to(place)
        if here != place and _looks_like_run(here) and _kind(here) != "all_folds":
            folders.clear()
            if _kind(here) == "run":
                yield str(inside), here
        elif len(inside.parts) >= _DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _looks_like_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return (
        run.manifest_file.is_file()
        or run.history_file.is_file()
        or (run.config_file.is_file() and run.checkpoints.is_dir())
    )


def _kind(folder: Path) -> Kind:
    """Return what a folder holds; a damaged one counts as a run, to be named with its fault."""
    try:
        return RunFolder(folder).kind()
    except LaminaError:
        return "run"


def _named(found: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Return the folders, each once, by their short names where these tell them apart."""
    folders = {folder.resolve(): (name, folder) for name, folder in found}
    names = [name for name, _ in folders.values()]
    return {(n if names.count(n) == 1 else str(f)): f for n, f in folders.values()}


def _read(name: str, run: RunFolder) -> RunFacts:
    run.check_kind("run")
    manifest = run.manifest()
    try:
        return _facts(name, run, manifest, read_history(run))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise TrainingError(f"{run.manifest_file}: is not what train writes ({what}).") from error


def _facts(
    name: str, run: RunFolder, manifest: Mapping[str, Any], history: list[dict[str, Any]]
) -> RunFacts:
    config = resolve(TrainConfig, manifest["config"])
    outcome = manifest.get("outcome", {})
    best = max(history, key=lambda line: line[config.select_by], default=None)
    waits = [line["waiting"] for line in history if "waiting" in line]
    state, why = _state(run, manifest, config, history)
    return RunFacts(
        name=name,
        path=run.root,
        network=manifest["network"]["name"],
        fold=manifest["fold"],
        data=manifest["dataset"]["name"],
        epochs=len(history),
        planned_epochs=config.epochs,
        steps=history[-1]["step"] if history else 0,
        best_dice=best["dice"] if best else None,
        best_epoch=best["epoch"] if best else None,
        seconds=outcome.get("seconds", history[-1]["elapsed_s"] if history else 0.0),
        waiting=outcome.get("waiting", fmean(waits) if waits else None),
        state=state,
        why=why,
        settings=_settings(manifest, config),
    )


def _state(
    run: RunFolder,
    manifest: Mapping[str, Any],
    config: TrainConfig,
    history: list[dict[str, Any]],
) -> tuple[str, str]:
    """Return what has become of a run, and why."""
    if outcome := manifest.get("outcome"):
        return outcome["state"], outcome["why"]
    process = manifest["process"]
    if process["host"] == platform.node():
        return ("running" if _is_alive(process) else "killed"), ""
    ends = [0.0, *(line["elapsed_s"] for line in history)]
    longest = max((b - a for a, b in zip(ends, ends[1:], strict=False)), default=0.0)
    silent = max(_SILENT_S, _PATIENCE * max(longest, config.checkpoint_every_s))
    files = [run.manifest_file, run.history_file, *run.checkpoints.glob("*.ckpt")]
    written = max(file.stat().st_mtime for file in files if file.is_file())
    return ("running" if time.time() - written < silent else "killed"), f"on {process['host']}"


def _is_alive(process: Mapping[str, Any]) -> bool:
    """Tell whether a process is still the one that was recorded, not a later one of its number."""
    try:
        found = psutil.Process(process["pid"])
        same: bool = abs(found.create_time() - process["started"]) < _CLOCKS_DIFFER_S
        return same and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _settings(manifest: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Return everything that may make two runs differ; settings younger than a run by default."""
    plan = {name: value for name, value in manifest["plan"].items() if name not in _NOT_COMPARED}
    machine = {name: manifest["machine"].get(name) for name in ("cores", "gpu")}
    others = {
        "data": {name: digest[:_HASH] for name, digest in manifest["hashes"].items()},
        "start": (manifest.get("start") or {}).get("model", "")[:_HASH] or None,
        "plan": plan,
        "software": manifest["software"],
        "machine": machine,
    }
    return flat(plain(config) | others)
