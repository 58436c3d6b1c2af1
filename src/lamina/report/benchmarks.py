"""The page of benchmarks, made of their record."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from lamina.bundle.markdown import escape, table

Row = Mapping[str, Any]

_HEADER = """\
# Benchmarks

```sh
lamina bench --whole-scan --out docs        # makes this page and docs/benchmarks.json
lamina bench run/model.lamina --threads 4   # a model of your own
```

{machine}.

Every row was measured in a process of its own. Those of one network took turns: in each round each
ran it once on the same noise. **Cold** is the first run after loading, **warm** the median of the
rounds after it. **Faster** is the median of the rounds' ratios to the plain form, the network as
its paper defines it, called as a user of torch would. **Roofline** is the share of the machine that
the network uses: the time in which each of its convolutions and matrix products could be done (the
longer of its arithmetic and of reading and writing its arrays once), over the warm time; arrays
that stay in the cache can bring it above 100 %. **Memory** is the most that the process held in
its first run, libraries included. **Difference** is the largest of any logit, over the largest
logit of the plain form.
"""
_NETWORK_COLUMNS = (
    "threads",
    "form",
    "warm (s)",
    "cold (s)",
    "faster",
    "roofline",
    "memory (MB)",
    "file (MB)",
    "difference",
)
_SCANS = """\
## Whole scans

Made-up scans, from file to file, by networks of fresh weights, windows overlapping by half: seconds
of each part; *outside* is the share of the time that the network does not take. MONAI's windows are
its `SlidingWindowInferer` through the plain network, all logits resampled to the scan's size, then
decided; files are read, prepared and written by Lamina.
"""
_SCAN = "A CT of {shape} voxels, {num_classes} classes, windows of {size} at {spacing:g} mm:\n"
_PARTS = ("read", "prepare", "network", "assemble", "write")


def page(record: Mapping[str, Any]) -> str:
    """Return the page, in Markdown, of a record that ``lamina bench`` wrote."""
    lines = [_HEADER.format(machine=_machine(record))]
    for name, facts in record["networks"].items():
        lines += _network(name, facts)
    if record["scans"]:
        lines += [_SCANS, *chain(*map(_scan, record["scans"].values()))]
    return "\n".join(lines).rstrip() + "\n"


def _machine(record: Mapping[str, Any]) -> str:
    about, versions = record["machine"], record["software"]
    used = ("python", "lamina", "torch", "monai", "onnxruntime", "openvino")
    named = ", ".join(f"{name} {versions[name]}" for name in used if versions.get(name))
    return (
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']:.0f} GB of memory "
        f"({about['platform']}){_scheduled(about.get('scheduling'))}; {named}"
    )


def _scheduled(policy: str | None) -> str:
    """Tell other turns than a usual process has, for these make times shorter, or longer."""
    if policy in (None, "SCHED_OTHER"):
        return ""
    real_time = policy in ("SCHED_FIFO", "SCHED_RR")
    return f", scheduled by {policy}" + (", ahead of all other work" if real_time else "")


def _network(name: str, facts: Row) -> Iterator[str]:
    yield (
        f"## {name}\n\n{_size(facts['size'])}, {facts['in_channels']} to {facts['num_classes']} "
        f"channels; {facts['parameters']:,} parameters, {facts['macs'] / 1e9:.1f} GMAC; "
        f"{facts['repeats']} rounds.\n"
    )
    rows = (
        (threads, row["title"], *_figures(row))
        for threads, found in facts["threads"].items()
        for row in found["rows"].values()
    )
    yield table(_NETWORK_COLUMNS, rows) + "\n"
    for threads, found in facts["threads"].items():
        peaks = found["peaks"]
        yield (
            f"The machine meanwhile, threads {threads}: {peaks['f32_gflop_s']:.0f} GFLOP/s in "
            f"float32, {peaks['bf16_gflop_s']:.0f} in bfloat16, {peaks['memory_gb_s']:.0f} GB/s.\n"
        )


def _figures(row: Row) -> Iterator[str]:
    if "error" in row:
        yield from (escape(row["error"]), *[""] * (len(_NETWORK_COLUMNS) - 3))
        return
    yield f"{row['warm_s']:.3f}"
    yield f"{row['cold_s']:.3f}"
    yield f"{row['faster']:.2f}" if row["faster"] else ""
    yield f"{row['roofline']:.0%}"
    yield f"{row['peak_mb']:.0f}"
    yield f"{row['megabytes']:.1f}"
    yield "" if row["difference"] is None else f"{row['difference']:.0e}"


def _scan(scan: Mapping[str, Any]) -> Iterator[str]:
    sizes = {name: _size(scan[name]) for name in ("shape", "size")}
    yield _SCAN.format(**{**scan, **sizes})
    columns = ("threads", "model", "way", *_PARTS, "in all", "outside", "memory (GB)")
    rows = (
        (threads, row["model"], row["title"], *_of_scan(row))
        for threads, of_threads in scan["threads"].items()
        for row in of_threads
    )
    yield table(columns, rows) + "\n"


def _of_scan(row: Row) -> Iterator[str]:
    if "error" in row:
        yield from (escape(row["error"]), *[""] * (len(_PARTS) + 2))
        return
    yield from (f"{row[part]:.1f}" for part in _PARTS)
    yield f"{row['seconds']:.1f}"
    yield f"{1 - row['network'] / row['seconds']:.0%}"
    yield f"{row['peak_mb'] / 1e3:.2f}"


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
