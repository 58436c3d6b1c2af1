"""How every run begins or goes on: where it may, what its manifest says of it, and how it ended."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any, TypeVar

import psutil
import yaml

from lamina.config import layered
from lamina.data.cache import preparation_of
from lamina.data.plan import Plan
from lamina.errors import FileError, LaminaError, TrainingError
from lamina.files import check_folder, locked, remove_parts, sha256, write_json, write_text
from lamina.folders.run import RunFolder
from lamina.folders.work import WorkFolder
from lamina.training.device import chosen_device

Settings = TypeVar("Settings")

MAY_CHANGE = (
    *("epochs", "time_budget_s", "patience", "workers", "checkpoint_every_s"),
    *("device", "devices", "nodes", "sharded", "activation_checkpointing", "compile"),
)
"""Settings that may change when a run is resumed."""


def check_new(run: RunFolder) -> None:
    """Refuse a folder for a new run that holds something, or cannot be one.

    Raises:
        TrainingError: It holds a run, or other files.
        FileError: It is a file.
    """
    check_folder(run.root)
    if run.manifest_file.is_file():
        raise TrainingError(
            f"{run.root}: already holds a run.", remedy="Add --resume, or choose another --out."
        )
    if run.holds_other_files():
        raise TrainingError(
            f"{run.root}: holds files that no run wrote.", remedy="Choose another --out."
        )


def plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass of settings as JSON and YAML know it: with lists, not tuples."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return content


def begun_with(run: RunFolder, work: WorkFolder, fold: int | None) -> tuple[Plan, int]:
    """Return plan and fold of a run to go on with, sure that its prepared cases are still there.

    Raises:
        TrainingError: It is of another fold, or of other cases.
    """
    manifest = run.manifest()
    if fold not in (None, manifest["fold"]):
        raise TrainingError(f"{run.root}: is a run of fold {manifest['fold']}, not {fold}.")
    plan = Plan.from_dict(manifest["plan"])
    same = preparation_of(plan) == preparation_of(work.plan())
    if not same or sha256(work.splits_file) != manifest["hashes"]["splits.json"]:
        raise TrainingError(
            f"{work.root}: is not what {run.root} was trained on: it was prepared anew.",
            remedy="Give the work folder that the run began with, or start another run.",
        )
    return plan, manifest["fold"]


def unchanged(
    run: RunFolder,
    recorded: Mapping[str, Any],
    settings: Mapping[str, Any],
    may_change: Sequence[str],
    complete: Callable[[Mapping[str, Any]], Settings],
) -> Settings:
    """Return the settings to go on with a run, sure that only those differ that may.

    Args:
        run: The run.
        recorded: Its settings, which may be a part of all.
        settings: What is asked for now.
        may_change: Names of those that may differ.
        complete: Makes settings of plain data.

    Raises:
        TrainingError: Others would change; all of them are listed.
        ConfigError: Settings are unknown or wrong.
    """
    device = settings.get("device", recorded.get("device"))
    then = {**recorded, "device": device}
    if chosen_device(device) == "cpu" and then.get("precision") == "fp16":  # which only GPUs have
        then["precision"] = "auto"
    now = complete(layered(then, settings))
    # Settings that are younger than the run had their defaults in it.
    had, asked = plain(complete(then)), plain(now)
    changed = [name for name in asked if name not in may_change and asked[name] != had.get(name)]
    if changed:
        raise TrainingError(
            f"{run.root}: {', '.join(changed)} cannot change when a run is resumed.",
            remedy=f"Only {', '.join(may_change)} can; start another run otherwise.",
        )
    return now


def check_same_start(run: RunFolder, start: str, then: str | None) -> None:
    """Refuse to go on with a run from weights that it did not begin with.

    Args:
        run: The run.
        start: Hash of the weights to begin from.
        then: The same of those that it began from, if there were any.

    Raises:
        TrainingError: They are others.
    """
    if start != then:
        raise TrainingError(
            f"{run.root}: did not begin from these weights, and has its own by now.",
            remedy="Leave out the weights to start from, or start another run.",
        )


class Record:
    """What a run's folder says of it while this process is at work there, and no other is.

    A context that lets go of the folder at its end, and keeps there why a run failed that had
    begun. Processes of a run that call nothing, as all but the first, keep nothing.

    Args:
        run: The run.
        found: Its manifest when it was checked, before all was made ready; empty if it had none.
    """

    def __init__(self, run: RunFolder, found: Mapping[str, Any]) -> None:
        self.run = run
        self.found = found
        self._lock = ExitStack()
        self._begun: dict[str, Any] = {}

    def __enter__(self) -> "Record":
        return self

    def hold(self) -> None:
        """Keep other processes out.

        Raises:
            TrainingError: Another process has been at work there since ``found`` was read.
            FileError: Another process is, or the folder cannot be made.
        """
        self._lock.enter_context(locked(self.run.root))
        if self.found != (self.run.manifest() if self.run.manifest_file.is_file() else {}):
            raise TrainingError(
                f"{self.run.root}: another process has been at work there meanwhile.",
                remedy="Look at what it left; then add --resume, or choose another --out.",
            )

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Keep settings and manifest, with the process that is at work.

        What a killed process left half written is removed.

        Raises:
            FileError: The folder cannot be written.
        """
        write_text(self.run.config_file, yaml.safe_dump(manifest["config"], sort_keys=False))
        for place in (self.run.root, self.run.checkpoints):
            remove_parts(place)
        process = psutil.Process()
        who = {"host": platform.node(), "pid": process.pid, "started": process.create_time()}
        begun = {name: value for name, value in manifest.items() if name != "outcome"}
        begun["process"] = who
        write_json(self.run.manifest_file, begun)
        self._begun = begun

    def end(self, **outcome: Any) -> None:
        """Keep what came of the run, as plain data."""
        if self._begun:
            write_json(self.run.manifest_file, self._begun | {"outcome": outcome})

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            if isinstance(error, LaminaError):
                with suppress(FileError):  # such as a full disk, which is why the run failed
                    self.end(state="failed", why=error.message)
