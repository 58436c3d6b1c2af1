"""Compare what a prediction is said to take of memory with what it takes.

Each scan is segmented in a process of its own, on one thread. Prints a Markdown table of predicted
and measured peaks, and of the time spent in the network and round it; --out keeps it as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SCANS = {
    "small MR": ("float32", (160, 160, 32), (1.0, 1.0, 3.0), "zscore", 2),
    "float64 MR": ("float64", (192, 192, 96), (1.0, 1.0, 1.5), "zscore", 4),
    "brain MR, 4 channels": ("float32", (182, 218, 182), (1.0, 1.0, 1.0), "zscore_nonzero", 4),
    "abdominal CT": ("int16", (512, 512, 120), (0.8, 0.8, 2.0), "ct", 15),
    "body CT": ("int16", (512, 512, 300), (0.8, 0.8, 1.5), "ct", 15),
}
"""Type, size in voxels, spacing in mm, scheme of the intensities, classes."""
ROI_SIZE = (96, 96, 96)
SPACING_MM = (1.5, 1.5, 1.5)
MB = 1e6


def main() -> None:
    """Measure all scans, or be one of the processes that do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", nargs="*", help=f"of {', '.join(SCANS)}; all by default")
    parser.add_argument("--network", default="lightmedseg", help="a registered preset")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_segment(arguments.child, arguments.network, arguments.overlap)))
        return
    rows = []
    print("| scan | predicted (MB) | measured (MB) | ratio | windows | network (s) | rest (s) |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.scans or SCANS:
        options = ["--network", arguments.network, "--overlap", str(arguments.overlap)]
        command = [sys.executable, __file__, "--child", name, *options]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | threads)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append({"scan": name, **row})
        print(
            f"| {name} | {row['predicted_mb']:.0f} | {row['measured_mb']:.0f} "
            f"| {row['predicted_mb'] / row['measured_mb']:.2f} | {row['windows']} "
            f"| {row['network_cpu_s']:.1f} | {row['rest_cpu_s']:.1f} |",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _segment(name: str, network: str, overlap: float) -> dict[str, Any]:
    import numpy as np

    from lamina.data.plan import Normalisation, Plan
    from lamina.geometry import affine_from
    from lamina.inference.backend import TorchNetwork
    from lamina.inference.predictor import Predictor
    from lamina.labels import LabelSet
    from lamina.models import configure
    from lamina.volume import Volume

    dtype, shape, spacing, scheme, num_classes = SCANS[name]
    channels = ("a", "b", "c", "d") if "4 channels" in name else ("a",)
    how = Normalisation(scheme=scheme, low=-200, high=300, mean=50, std=100)
    plan = Plan(
        spatial_dims=3,
        channels=channels,
        labels=LabelSet(values={f"organ {i}": i for i in range(1, num_classes)}),
        orientation="RAS",
        target_spacing=SPACING_MM,
        normalisation=(how,) * len(channels),
        network=network,
        patch_size=ROI_SIZE,
        roi_size=ROI_SIZE,
        overlap=overlap,
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    module = configure(network, in_channels=len(channels), num_classes=num_classes).build().eval()
    runner, spent, windows = TorchNetwork(module), [0.0], [0]

    def timed(batch: Any) -> Any:
        began = time.process_time()
        logits = runner(batch)
        spent[0] += time.process_time() - began
        windows[0] += len(batch)
        return logits

    rng = np.random.default_rng(0)
    array = np.empty((len(channels), *shape), dtype)
    for channel in array:
        for plane in channel:
            plane[:] = rng.normal(40, 120, plane.shape)
    image = Volume(array, affine_from(spacing), name)
    predictor = Predictor(network=timed, plan=plan)
    memory = predictor.predicted_memory(image)
    spent[0], windows[0] = 0.0, 0
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    began = time.process_time()
    predictor(image)
    rest = time.process_time() - began - spent[0]
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return {
        "predicted_mb": memory.peak_bytes / MB,
        "measured_mb": 1024 * int(peak.split()[1]) / MB,
        "windows": windows[0],
        "network_cpu_s": spent[0],
        "rest_cpu_s": rest,
    }


if __name__ == "__main__":
    main()
