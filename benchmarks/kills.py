"""Kill training at random moments, resume it, and see whether it ends with the same weights.

A run that nobody disturbs is made first. Then the same run is made again and again, its process
killed (SIGKILL) time after time, whatever it is doing, and resumed until it ends by itself. Prints
how often it was killed and whether all weights were equal to the bit.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Make one run undisturbed and the others disturbed; exit with 1 where weights differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path, help="folder that prepare wrote")
    parser.add_argument("--model", default="lightmedseg")
    parser.add_argument("--runs", type=int, default=5, help="disturbed runs")
    parser.add_argument("--longest", type=float, default=30.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="decides when")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        subprocess.run(_training(arguments, whole), check=True)
        expected, kills, equal = _weights(whole), 0, 0
        for number in range(arguments.runs):
            run = Path(scratch) / f"run_{number}"
            while not _ends(arguments, run, moments.uniform(0, arguments.longest)):
                kills += 1
            equal += _weights(run) == expected
            print(f"{number + 1} runs, {kills} kills, {equal} with equal weights", flush=True)
    sys.exit(equal < arguments.runs)


def _ends(arguments: argparse.Namespace, run: Path, seconds: float) -> bool:
    """Train or resume for so many seconds at most; tell whether the run ended by itself."""
    resume = ["--resume"] if (run / "manifest.json").is_file() else []
    with subprocess.Popen([*_training(arguments, run), *resume]) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
    if code:
        sys.exit(f"{run}: training failed")
    return True


def _training(arguments: argparse.Namespace, run: Path) -> list[str]:
    training = [sys.executable, "-m", "lamina", "train", str(arguments.work), "--out", str(run)]
    training += ["--model", arguments.model, "--epochs", "4", "--device", "cpu", "--quiet"]
    return [*training, "--set", "steps_per_epoch=15", "--set", "checkpoint_every_s=1"]


def _weights(run: Path) -> str:
    with zipfile.ZipFile(run / "model.lamina") as bundle:
        return hashlib.sha256(bundle.read("weights.safetensors")).hexdigest()


if __name__ == "__main__":
    main()
