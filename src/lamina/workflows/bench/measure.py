"""The protocol: who is measured when, and what is made of the figures."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lamina.bundle import save_bundle
from lamina.errors import ConfigError
from lamina.models.complexity import complexity, products
from lamina.workflows import Progress, no_progress
from lamina.workflows.bench.forms import FORMS, PLAIN
from lamina.workflows.bench.peaks import roofline_s
from lamina.workflows.bench.processes import Failed, Measuring
from lamina.workflows.bench.record import new_record, read_benchmarks, write_benchmarks
from lamina.workflows.bench.subjects import (
    SUBJECTS,
    WAYS,
    Subject,
    WholeScan,
    check,
    subject,
    untrained,
)

_VALUE_BYTES = {"f32": 4, "bf16": 2}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How to measure.

    Raises:
        ConfigError: A form is unknown, or a number too small.
    """

    size: tuple[int, ...] | None = None
    """Window in voxels in place of each network's own."""
    threads: tuple[int, ...] = (1, 2)
    forms: tuple[str, ...] = tuple(FORMS)
    """Of ``FORMS``; the plain one is measured in any case."""
    repeats: int = 5
    """Rounds after the first, cold one."""
    timeout_s: float = 300.0
    """What takes longer in one step is given up."""
    scans: Mapping[str, WholeScan] = field(default_factory=dict)
    """Made-up CTs to segment from file to file, by name."""

    def __post_init__(self) -> None:
        unknown = set(self.forms) - set(FORMS)
        if unknown:
            raise ConfigError(f"form {min(unknown)!r}: must be one of {', '.join(FORMS)}.")
        if min(self.repeats, *self.threads, *(self.size or (1,))) < 1:
            raise ConfigError("threads, repeats and sizes must be at least 1.")


def bench(
    names: Sequence[str] = (),
    settings: BenchSettings | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure networks, form by form, and whole scans.

    Args:
        names: Models or registered networks; those of ``SUBJECTS`` by default.
        settings: How.
        out: Folder for ``benchmarks.json`` and ``benchmarks.md``. They are written whenever a
            network is done, and what they hold of other networks stays.
        progress: Called after each step.

    Returns:
        ``machine``, ``software``; ``networks``: by name and threads, a row for each form;
        ``scans``: by name and threads, a row for each network and way. A row that could not be
        measured has ``error``.

    Raises:
        UnknownNameError: There is neither such a file nor such a network.
        ConfigError: The size is not for it, or ``out`` holds figures of another machine.
        FileError: ``out`` cannot be written.
    """
    out = Path(out) if out else None
    chosen, asked = settings or BenchSettings(), list(names or SUBJECTS)
    for name in asked:
        check(name, chosen.size)
    record = read_benchmarks(out) if out else new_record()
    jobs = [(name, threads) for name in asked for threads in chosen.threads]
    scan_runs = sum(len(scan.runs) for scan in chosen.scans.values())
    total = len(jobs) * (1 + chosen.repeats) + scan_runs * len(chosen.threads)
    steps = _Steps(total, progress)
    with TemporaryDirectory() as scratch:
        for name in asked:
            folder = Path(scratch) / f"{asked.index(name)}"
            found = subject(name, chosen.size, folder)
            facts = _facts(found, chosen)
            earlier = record["networks"].get(found.name, {})
            if all(earlier.get(key) == value for key, value in facts.items()):
                facts["threads"] = dict(earlier["threads"])
            facts.setdefault("threads", {})
            record["networks"][found.name] = facts
            exports = _exports(found, folder, chosen, steps)
            for threads in chosen.threads:
                facts["threads"][f"{threads}"] = _rows(found, exports, threads, chosen, steps)
                if out:
                    write_benchmarks(record, out)
        for name, scan in chosen.scans.items():
            folder = Path(scratch) / name
            folder.mkdir()
            record["scans"][name] = _whole_scan(scan, folder, chosen, steps)
            if out:
                write_benchmarks(record, out)
    return record


class _Steps:
    """Counts what was done of all."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def tell(self, what: str, done: int = 0) -> None:
        """Say what is done now, and count what was."""
        self._done += done
        self._progress(self._done, self._total, what)


def _facts(found: Subject, settings: BenchSettings) -> dict[str, Any]:
    """Return what does not depend on the machine."""
    config, window = found.bundle.config, found.bundle.plan.seen_roi_size
    cost = complexity(config, window)
    return {
        "network": found.bundle.network["name"],
        "in_channels": config.in_channels,
        "num_classes": config.num_classes,
        "size": list(window),
        "parameters": cost.parameters * found.bundle.num_members,
        "macs": cost.macs * found.bundle.num_members,
        "repeats": settings.repeats,
    }


def _exports(
    found: Subject, folder: Path, settings: BenchSettings, steps: _Steps
) -> dict[str, Row]:
    """Export to every target that a form needs; return size and time of each, or its error."""
    exports: dict[str, Row] = {}
    for target in dict.fromkeys(FORMS[name].target for name in settings.forms):
        if target:
            steps.tell(f"{found.name}: exporting to {target}")
            job = {"model": found.file, "target": target, "folder": folder}
            exports[target] = _once("export", 1, settings, **job)
    return exports


def _rows(
    found: Subject,
    exports: Mapping[str, Row],
    threads: int,
    settings: BenchSettings,
    steps: _Steps,
) -> dict[str, Any]:
    """Measure all forms in turn, round by round; return the machine's peaks and their rows."""
    rows: dict[str, Row] = {}
    measured: dict[str, list[float]] = {}
    with ExitStack() as ending:
        machine = ending.enter_context(_process("machine", threads, settings))
        running: dict[str, Measuring] = {}
        for name in dict.fromkeys((PLAIN, *settings.forms)):
            size = exports.get(FORMS[name].target or "", {})
            rows[name] = {"title": FORMS[name].title, "megabytes": _megabytes(found), **size}
            if "error" not in size:
                job = {"model": found.file, "form": name, "folder": found.file.parent}
                running[name] = ending.enter_context(_process("network", threads, settings, **job))
        for process in (machine, *running.values()):
            with suppress(Failed):  # which its first step tells
                process.wait()  # nothing is measured while others start
        peaks = [machine.step()]
        for name in list(running):
            steps.tell(f"{found.name}, {threads} threads: first run of {FORMS[name].title}")
            _step(running, name, rows[name])
        steps.tell("", 1)
        for turn in range(1, settings.repeats + 1):
            steps.tell(f"{found.name}, {threads} threads: round {turn} of {settings.repeats}", 1)
            peaks.append(machine.step())
            for name in list(running):
                if reply := _step(running, name, {}, rows[name]):
                    measured.setdefault(name, []).append(reply["warm_s"])
    best = {key: max(peak[key] for peak in peaks) for key in peaks[0]}
    roofline, plain = _roofline(found, best), measured.get(PLAIN, ())
    for name, row in rows.items():
        if "error" not in row:
            _conclude(row, measured[name], plain, roofline, FORMS[name].precision)
    return {"peaks": best, "rows": rows}


def _step(running: dict[str, Measuring], name: str, into: Row, failing: Row | None = None) -> Row:
    """Have a process do its next step; where it fails, it is out, and its row says why."""
    try:
        into |= running[name].step()
    except Failed as problem:
        del running[name]
        (into if failing is None else failing)["error"] = f"{problem}"
    return into


def _conclude(
    row: Row,
    taken: Sequence[float],
    plain: Sequence[float],
    roofline: Callable[[str], float],
    precision: str,
) -> None:
    """Add to a row what follows from its times, those of the plain form, and the machine."""
    row["warm_s"], row["fastest_s"] = median(taken), min(taken)
    row["faster"] = median(p / t for p, t in zip(plain, taken, strict=False)) if plain else None
    row["roofline"] = roofline(precision) / row["warm_s"]


def _roofline(found: Subject, peaks: Mapping[str, float]) -> Callable[[str], float]:
    """Return what tells the least seconds that the machine could need, by precision."""
    operators = products(found.bundle.config, found.bundle.plan.seen_roi_size)

    def least(precision: str) -> float:
        return found.bundle.num_members * roofline_s(
            operators,
            gflop_s=peaks[f"{precision}_gflop_s"],
            memory_gb_s=peaks["memory_gb_s"],
            value_bytes=_VALUE_BYTES[precision],
        )

    return least


def _megabytes(found: Subject) -> float:
    return found.file.stat().st_size / 1e6


def _whole_scan(
    scan: WholeScan, folder: Path, settings: BenchSettings, steps: _Steps
) -> dict[str, Any]:
    """Segment a made-up scan by every network in every way."""
    image = folder / "scan.nii.gz"
    steps.tell("making a scan")
    made = _once("scan", 1, settings, out=image, shape=scan.shape)
    by_threads: dict[str, list[Row]] = {}
    for threads in settings.threads:
        rows = by_threads[f"{threads}"] = []
        for name, way in scan.runs:
            steps.tell(f"a whole scan, {threads} threads: {name}, {WAYS[way]}")
            model, out = folder / f"{name}.lamina", folder / f"{name}-{way}-{threads}"
            if not model.exists():
                save_bundle(untrained(name, 1, scan.num_classes, scan.size, scan.spacing), model)
            job = {"model": model, "image": image, "out": out, "way": way}
            found = made if "error" in made else _once("segment", threads, settings, **job)
            rows.append({"model": name, "way": way, "title": WAYS[way], **found})
            steps.tell("a whole scan", 1)
    return {key: value for key, value in asdict(scan).items() if key != "runs"} | {
        "threads": by_threads
    }


def _once(job: str, threads: int, settings: BenchSettings, **told: Any) -> Row:
    """Do a job of one step; return what was measured, or why nothing was."""
    with _process(job, threads, settings, **told) as process:
        try:
            return dict(process.step())
        except Failed as problem:
            return {"error": f"{problem}"}


def _process(job: str, threads: int, settings: BenchSettings, **told: Any) -> Measuring:
    return Measuring(job, threads=threads, timeout_s=settings.timeout_s, **told)
