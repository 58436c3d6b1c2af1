"""Segment scans with an exported model, without torch: ``lamina-runtime -m MODEL -i SCAN -o OUT``.

Scans are read, prepared, put back and written by the code that always does it; only the network is
run by ONNX Runtime or OpenVINO.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.data.scans import scan_of
from lamina.data.slices import slice_axis
from lamina.data.workers import num_cores
from lamina.errors import BundleError, ConfigError, FileError, LaminaError, first_line
from lamina.export.attention import MapDrawer
from lamina.export.container import Exported, read_exported
from lamina.export.targets import ATTENTION, MODEL, TARGETS, Precision
from lamina.inference.postprocess import steps_from
from lamina.inference.predictor import Predictor
from lamina.inference.sparing import Sparing
from lamina.io import check_writable, write_volume
from lamina.pretrained import quantised
from lamina.signals import INTERRUPTED, end_like_ctrl_c
from lamina.volume import Volume

_REFUSED = 2
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@dataclass(frozen=True)
class Model:
    """An exported model in memory."""

    exported: Exported
    predictor: Predictor

    def predict(self, *images: str | Path, pixel_size: float | None = None) -> Volume:
        """Segment a scan: one file that holds all channels, or one per channel.

        Args:
            images: The files, or the folder of a DICOM series. Of files that are called
                ``x_0000``, ``x_0001``, ..., the first alone brings the others along.
            pixel_size: Side of a pixel in mm, of a picture that does not tell it.

        Returns:
            Label map ``(1, *S)`` on the scan's own grid, with the values of the training labels.

        Raises:
            LaminaError: The scan cannot be read or does not fit the model.
        """
        return self.segment(self.read(self.scan(*images)), pixel_size)

    def scan(self, *images: str | Path) -> Case:
        """Return the scan that files are; the rest is as for :meth:`predict`."""
        return scan_of(images, len(self.exported.plan.channels))

    def read(self, scan: Case) -> Volume:
        """Return a scan as it is stored, ``(C, *S)``."""
        return scan.read_image(self.exported.plan.channels)

    def segment(self, stored: Volume, pixel_size: float | None = None) -> Volume:
        """Segment a scan that was read; the rest is as for :meth:`predict`."""
        image = stored if pixel_size is None else stored.sized((pixel_size, pixel_size))
        return self.predictor(image).laid_on(stored)


def load(
    folder: str | Path,
    *,
    threads: int | None = None,
    precision: Precision = "fp32",
    resample_oblique: bool = False,
) -> Model:
    """Load an exported model.

    Args:
        folder: What ``lamina export`` wrote, or the name of a model that comes along.
        threads: To run on; all cores by default.
        precision: ``"bf16"`` where OpenVINO and the processor have it; quicker, less exact.
        resample_oblique: As for :func:`lamina.load`.

    Raises:
        BundleError: The folder holds no exported model, one that is damaged or altered, or one
            that may run code of its own.
        ExportError: The target does not compute in that precision.
        ImportError: What runs the target is not installed.
    """
    root = Path(folder)
    if not root.exists():
        root = _coming_along(str(folder))
    exported = read_exported(root)
    plan, target = exported.plan, TARGETS.get(exported.target)
    if target.runs_code:
        raise BundleError(
            f"{root}: an export to {exported.target} may hold code that loading it would run.",
            remedy="Export the model to onnx or openvino.",
        )
    maps = None
    if exported.network["fields"].get("attention_maps"):
        graph = target.network(root, ATTENTION, threads)
        maps = MapDrawer.of(exported.network["attention"], graph, slice_axis(plan))
    try:
        steps = steps_from(exported.postprocessing, plan.labels)
    except ConfigError as error:
        raise BundleError(f"{root}: {error}") from error
    predictor = Predictor(
        network=Sparing(target.network(root, MODEL, threads, precision)),
        plan=plan,
        resample_oblique=resample_oblique,
        maps=maps,
        postprocessing=steps,
        threads=threads or num_cores(),
    )
    return Model(exported, predictor)


def _coming_along(name: str) -> Path:
    models = quantised()
    if name not in models:
        raise BundleError(
            f"{name}: no such folder.",
            remedy="Give one that lamina export wrote, or the name of a model that comes along: "
            f"{', '.join(models) or 'there is none'}.",
        )
    return models[name]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Segment one scan and write the segmentation.

    Raises:
        LaminaError: The model or the scan cannot be used, or the segmentation not written.
    """
    began = time.perf_counter()
    out: Path = arguments.output
    _check_output(out)
    model = load(
        arguments.model,
        threads=arguments.threads,
        precision=arguments.precision,
        resample_oblique=arguments.resample_oblique,
    )
    loaded = time.perf_counter()
    scan = model.scan(*arguments.input)
    if os.path.realpath(out) in map(os.path.realpath, scan.image_files):
        raise FileError(f"{out}: is the scan itself.", remedy="Choose another name for -o.")
    stored = model.read(scan)
    check_writable(out, stored.unit)
    found = model.segment(stored, arguments.pixel_size)
    write_volume(replace(found, source=str(out)), out)
    return {
        "segmentation": str(out),
        "target": model.exported.target,
        "model_sha256": model.exported.source["sha256"],
        "load_s": round(loaded - began, 2),
        "segment_s": round(time.perf_counter() - loaded, 2),
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run the program."""
    end_like_ctrl_c()
    arguments = _parser().parse_args(given)
    try:
        result = run(arguments)
    except LaminaError as error:
        _refuse(error, arguments.json)
    except ModuleNotFoundError as error:
        missing = LaminaError(f"{error.name} is not installed.", remedy="Install it.")
        _refuse(missing, arguments.json)
    except (MemoryError, RuntimeError) as error:
        reason = first_line(error)
        _refuse(LaminaError(f"Cannot be segmented on this machine: {reason}."), arguments.json)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    else:
        line = f"Segmented: {result['segmentation']} in {result['segment_s']} s"
        _say(json.dumps(result, indent=2) if arguments.json else line, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lamina-runtime",
        description="Segment a scan with an exported model. Research use only.",
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        required=True,
        help="folder of lamina export, or the name of one that comes along",
    )
    parser.add_argument(
        *("-i", "--input"),
        type=Path,
        required=True,
        nargs="+",
        help="scan, DICOM series, or a file per channel",
    )
    parser.add_argument(
        *("-o", "--output", "--out"), type=Path, required=True, help="segmentation to write"
    )
    parser.add_argument("--threads", type=_count, help="all cores by default")
    parser.add_argument("--precision", choices=_PRECISIONS, default="fp32", help="of the network")
    parser.add_argument(
        "--pixel-size", type=float, metavar="MM", help="side of a picture's pixels, if untold"
    )
    parser.add_argument(
        "--resample-oblique", action="store_true", help="accept scans with a tilted gantry"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)


def _check_output(out: Path) -> None:
    """Check, before anything is segmented, that the segmentation can have this name.

    Raises:
        FileError: It cannot.
    """
    check_writable(out)
    if out.is_dir():
        raise FileError(f"{out}: is a folder.", remedy="Give the name of a file to -o.")


def _refuse(error: LaminaError, as_json: bool) -> None:
    if as_json:
        _say(json.dumps(error.as_dict(), indent=2), sys.stdout)
    else:
        _say(f"Error: {error}", sys.stderr)
    sys.exit(_REFUSED)


def _say(text: str, stream: Any) -> None:
    stream.write(f"{text}\n")


if __name__ == "__main__":
    main()
