"""A MONAI bundle: configuration, metadata and weights as MONAI's own program runs them.

Lamina, which must be installed beside MONAI, builds its network and reads its scans, and its
postprocessing is Lamina's. Its preparation consists of MONAI's transforms. They come close to
Lamina's and are not the same: interpolation and cropping differ in detail, so that segmentations
differ by some voxels along edges, and by more where the plan's voxels are much larger than the
scan's.
"""

import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lamina.data.plan import Plan
from lamina.errors import ExportError, LaminaError
from lamina.export.monai_transforms import (
    composed,
    inferer,
    listed,
    postprocessing,
    preprocessing,
    suffixes,
)
from lamina.export.targets import (
    ATTENTION,
    MODEL,
    TARGETS,
    Graphs,
    Network,
    Precision,
    Segment,
    Target,
)
from lamina.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from torch import nn

    from lamina.bundle import Bundle

_INFERENCE = "configs/inference.json"
_METADATA = "configs/metadata.json"
_WEIGHTS = "models/model.pt"
_RUN = (
    "python -m monai.bundle run --bundle_root {folder} "
    f"--config_file {{folder}}/{_INFERENCE} --meta_file {{folder}}/{_METADATA} --dataset_dir SCANS"
)


def write(bundle: "Bundle", graphs: Graphs, folder: Path) -> None:
    """Write ``configs/``, ``models/``, ``docs/`` and the licence notice.

    Raises:
        ExportError: MONAI's transforms cannot prepare scans as the plan says, or the network needs
            more than a scan.
    """
    import torch

    plan = bundle.plan
    if ATTENTION in graphs:
        raise ExportError(
            f"{bundle.network['name']}: reads attention maps, which MONAI has no transform for.",
            remedy="Export it to onnx or openvino, or train dainet_unet, which reads none.",
        )
    network = graphs[MODEL].network
    write_json(folder / _METADATA, _metadata(bundle))
    write_json(folder / _INFERENCE, _inference(bundle))
    (folder / _WEIGHTS).parent.mkdir()
    torch.save(network.state_dict(), folder / _WEIGHTS)
    write_text(folder / "LICENSE", _notice(bundle))
    write_text(folder / "docs" / "README.md", _readme(plan))


def load(folder: Path, graph: str, threads: int | None, precision: Precision) -> Network:
    """Build the network from the bundle's own configuration; nothing is unpickled but weights."""
    from lamina.export.graphs import of_arrays

    return of_arrays(_built(folder), threads)


def segmenter(folder: Path) -> Segment:
    """Return what segments scans by the bundle's own transforms and window, but writes no files."""
    import torch
    from monai.bundle import ConfigParser

    settings = read_json(folder / _INFERENCE)
    formats = tuple(settings["datalist"]["suffixes"])
    settings["postprocessing"]["transforms"].pop()  # which writes
    parser, network = ConfigParser(settings), _built(folder)

    def segment(files: Sequence[Path]) -> NDArray[Any]:
        if not all(file.name.lower().endswith(formats) for file in files):
            raise ExportError(
                f"{files[0]}: the bundle reads only {', '.join(formats)}.",
                remedy="Check it on scans in these formats.",
            )
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                prepare, infer, finish = (
                    parser.get_parsed_content(name)
                    for name in ("preprocessing", "inferer", "postprocessing")
                )
                scan = prepare({"image": [str(file) for file in files]})
                scan["pred"] = infer(scan["image"][None], network)[0]
                found: NDArray[Any] = finish(scan)["pred"].numpy()
        except RuntimeError as error:  # which MONAI makes of all that its transforms raise
            reason = error.__cause__ or error
            if isinstance(reason, LaminaError):
                raise reason from None
            raise ExportError(
                f"{files[0]}: the bundle cannot segment it: {reason}",
                remedy="Leave it out of --check, and segment such scans with lamina predict.",
            ) from error
        return found

    return segment


def _built(folder: Path) -> "nn.Module":
    import torch

    from lamina.bundle import Ensemble
    from lamina.models import build

    definition = read_json(folder / _INFERENCE)["network_def"]
    members = definition.get("members", [definition])
    networks = [
        build(**{k: v for k, v in told.items() if not k.startswith("_")}) for told in members
    ]
    network = networks[0] if len(networks) == 1 else Ensemble(networks)
    network.load_state_dict(torch.load(folder / _WEIGHTS, weights_only=True))
    return network.eval()


def _metadata(bundle: "Bundle") -> dict[str, Any]:
    plan = bundle.plan
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": ", ".join(plan.channels),
        "num_channels": len(plan.channels),
        "spatial_shape": list(plan.seen_roi_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(place): name for place, name in enumerate(plan.channels)},
    }
    prediction = image | {
        "format": "segmentation",
        "num_channels": plan.num_outputs,
        "value_range": [],
        "channel_def": {str(place): name for place, name in enumerate(_outputs(plan))},
    }
    found = ", ".join(plan.labels.foreground)
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "Exported by Lamina."},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("lamina", "nibabel")},
        "name": f"Segmentation of {found}",
        "task": f"Segmentation of {found}",
        "description": f"{bundle.network['name']}, trained with Lamina. Research use only.",
        "authors": "The people who trained the model",
        "copyright": "See LICENSE",
        "data_source": str(bundle.dataset.get("name", "not recorded")),
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": prediction}},
    }


def _outputs(plan: Plan) -> tuple[str, ...]:
    if plan.region_based:
        return tuple(plan.labels.regions)
    return ("background", *plan.labels.foreground)


def _inference(bundle: "Bundle") -> dict[str, Any]:
    plan = bundle.plan
    return {
        "imports": ["$import numpy", "$import os", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$os.path.abspath(@bundle_root) + '-scans'",
        "output_dir": "$os.path.abspath(@bundle_root) + '-eval'",
        "datalist": listed(plan),
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": _network(bundle),
        "network": "$@network_def.to(@device)",
        "preprocessing": composed(preprocessing(plan)),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': files} for files in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": inferer(plan),
        "postprocessing": composed(postprocessing(bundle)),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{_WEIGHTS}'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$@network.eval()"],
        "run": ["$@evaluator.run()"],
    }


def _network(bundle: "Bundle") -> dict[str, Any]:
    plain = json.loads(json.dumps(bundle.network["fields"]))
    member = {"_target_": "lamina.models.build", "name": bundle.network["name"], **plain}
    if bundle.num_members == 1:
        return member
    return {"_target_": "lamina.bundle.Ensemble", "members": [member] * bundle.num_members}


def _notice(bundle: "Bundle") -> str:
    return (
        "The configuration of this bundle and the code that its network is built by are part of\n"
        "Lamina, under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).\n\n"
        "The weights were trained on data under this licence, whose terms may bind them:\n"
        f"{bundle.dataset.get('licence') or 'not recorded'}.\n\n"
        "Research use only; not a medical device.\n"
    )


def _readme(plan: Plan) -> str:
    return (
        f"# Segmentation of {', '.join(plan.labels.foreground)}\n\n"
        "Needs MONAI, pytorch-ignite, fire, nibabel and Lamina.\n\n"
        f"    {_RUN.format(folder='.')}\n\n"
        f"Scans are the files of a folder in {', '.join(suffixes(plan))}. Segmentations are left "
        "beside the bundle's folder, in one of its name and `-eval`; `--output_dir` names another. "
        "Whatever is put into the bundle's folder itself makes it another than was exported.\n\n"
        "The model card is `README.md` beside `configs/`.\n"
    )


TARGETS.register("monai")(
    Target(packages=("monai",), write=write, load=load, how_to_run=_RUN, segmenter=segmenter)
)
