"""The demo from end to end, on images and cut short."""

import numpy as np
import pytest
from PIL import Image

from lamina.errors import ConfigError, DatasetError
from lamina.files import read_json, write_json
from lamina.folders.model import load
from lamina.io import read_labels
from lamina.workflows.demo import demo


def test_leaves_scans_model_segmentations_scores_and_a_picture(tmp_path):
    out = tmp_path / "demo"
    write_json(out / "demo.json", {})  # as an earlier demo, of volumes, left it
    for stale in ("scans/imagesTs/old.nii.gz", "predicted/old.nii.gz", "run/manifest.json"):
        (out / stale).parent.mkdir(parents=True, exist_ok=True)
        (out / stale).write_text("old")
    stages, epochs, steps = [], [], []
    result = demo(
        str(out),
        spatial_dims=2,
        settings={"time_budget_s": None, "epochs": 1, "steps_per_epoch": 2, "batch_size": 2},
        progress=lambda done, total, what: stages.append(what),
        on_epoch=epochs.append,
        on_step=lambda *call: steps.append(call),
    )
    assert not list(out.rglob("old*"))
    assert read_json(out / "demo.json")["spatial_dims"] == 2
    assert len(result.scores.cases) == len(list((out / "scans" / "imagesTs").iterdir())) == 12
    assert not result.scores.failures
    assert read_json(out / "scores" / "scores.json")["mean_foreground"]["dice"] == pytest.approx(
        result.as_dict()["mean_dice"]
    )
    found = {
        int(v) for p in (out / "predicted").glob("*.gz") for v in np.unique(read_labels(p).array)
    }
    assert found <= {0, 1, 2, 5, 7, 20}
    assert load(result.training.bundle).bundle.plan.spatial_dims == 2
    with Image.open(result.overlay) as picture:
        picture.verify()
    assert stages[0] == "Reading"
    assert stages[-1] == result.scores.cases[-1]
    assert (len(epochs), len(steps)) == (1, 2)


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(DatasetError, match="holds files that no demo made"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "thesis.txt"]


def test_a_misspelt_setting_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="epoch: unknown; did you mean epochs"):
        demo(tmp_path / "demo", settings={"epoch": 1})
    assert not (tmp_path / "demo").exists()
