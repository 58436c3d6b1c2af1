"""The page as a user meets it: ``lamina serve``, a scan sent from the browser, its segmentation."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from small_bundles import small_bundle

pytest.importorskip("fastapi")
pytest.importorskip("lamina.serve.app")

from lamina.bundle import save_bundle
from lamina.io import read_labels
from lamina.workflows.predict import predict

MAIN = "from lamina.cli import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with weights that nobody trained: what it finds is nonsense, but always the same."""
    folder = tmp_path_factory.mktemp("models")
    save_bundle(small_bundle("lightmedseg"), folder / "untrained.lamina")
    return folder / "untrained.lamina"


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """Where a running server is."""
    data = tmp_path_factory.mktemp("serve") / "data"
    command = [sys.executable, "-c", MAIN, "serve", "--models", model, "--data", data]
    command += ["--port", "0", "--json"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads("".join(process.stdout.readline() for _ in range(3)))["url"]
        finally:
            process.terminate()


def coloured(page):
    shot = Image.open(io.BytesIO(page.locator("#planes-box").screenshot())).convert("RGB")
    return int(np.count_nonzero(np.ptp(np.asarray(shot).astype(int), axis=2) > 40))


@pytest.mark.timeout(900)
def test_what_the_browser_gets_is_what_the_command_line_writes(
    url, model, tiny_dataset, visit, tmp_path
):
    scan = tmp_path / "Nobody Known.nii.gz"
    shutil.copy(tiny_dataset / "imagesTr" / "ball_000.nii.gz", scan)
    predict(model, scan, out=tmp_path / "cli")
    expected = read_labels(tmp_path / "cli" / scan.name)

    with visit(url, accept_downloads=True) as page:
        page.wait_for_selector(".choice")
        assert "token" not in page.url
        page.set_input_files("#files", scan)
        page.click("#go")
        page.wait_for_selector("#screen[data-ready]")
        assert page.inner_text("#job-name") == scan.name
        shown = coloured(page)
        page.keyboard.press("o")
        assert shown > coloured(page) + 5000

        with page.expect_download() as waiting:
            page.click("#downloads a[download='segmentation.nii.gz']")
        waiting.value.save_as(tmp_path / "page.nii.gz")
        found = read_labels(tmp_path / "page.nii.gz")
        assert np.array_equal(found.array, expected.array)
        assert np.array_equal(found.affine, expected.affine)

        page.reload()  # history brings it back
        page.wait_for_selector("#screen[data-ready]")
        listed = page.locator("#structures .size").all_inner_texts()
        assert len(listed) == len(small_bundle("lightmedseg").plan.labels.values)
