"""A scan on the way into a browser: what is served is what the files hold, and to nobody else."""

import json
import socket
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from lamina.data.phantom import PHANTOM_LABELS, make_phantom
from lamina.errors import FileError, GeometryError, LabelError
from lamina.files import write_json
from lamina.geometry import affine_from
from lamina.io import read_volume, write_volume
from lamina.serve.view_server import ViewServer
from lamina.volume import Volume
from lamina.workflows import view as workflow
from lamina.workflows.view import served

PIXELS = np.diag([-1.0, -1, 1, 1])


class Client:
    def __init__(self, server):
        self.address = urlsplit(server.url)
        self.cookie = f"{server.cookie}={server.token}"

    def get(self, path, **headers):
        connection = HTTPConnection(self.address.hostname, self.address.port, timeout=20)
        connection.request("GET", path, headers={"Cookie": self.cookie, **headers})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    def job(self):
        return json.loads(self.get("/api/jobs/local")[1])

    def file(self, name, folder):
        path = folder / name
        path.write_bytes(self.get(f"/api/jobs/local/files/{name}")[1])
        return path


@contextmanager
def viewed(*files, **options):
    with served(*files, **options) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Client(server)
        server.shutdown()


@pytest.fixture
def phantom(tmp_path):
    image, label = make_phantom(3)
    write_volume(image, tmp_path / "given" / "scan.nii.gz")
    write_volume(label, tmp_path / "given" / "label.nii.gz")
    labels = {"background": 0, **PHANTOM_LABELS.values}
    write_json(tmp_path / "given" / "dataset.json", {"labels": labels})
    return tmp_path / "given" / "scan.nii.gz", tmp_path / "given" / "label.nii.gz"


def test_voxels_names_and_volumes_are_those_of_the_files(phantom, tmp_path):
    scan, label = map(read_volume, phantom)
    with viewed(*phantom) as client:
        shown = read_volume(client.file("scan.nii", tmp_path))
        marked = read_volume(client.file("segmentation.nii", tmp_path))
        job = client.job()
    assert np.array_equal(shown.array, scan.array)
    assert np.allclose(shown.affine, scan.affine, atol=1e-3)
    assert np.array_equal(marked.array, label.array)
    assert {s["name"]: s["value"] for s in job["structures"]} == dict(PHANTOM_LABELS.values)
    for structure in job["structures"]:
        voxels = np.count_nonzero(label.array == structure["value"])
        assert structure["size"] == pytest.approx(voxels * np.prod(label.spacing) / 1000, rel=1e-6)
    assert (job["state"], job["model"], job["name"]) == ("done", None, "scan.nii.gz")


def test_only_who_knows_the_token_is_answered(phantom):
    with viewed(phantom[0]) as client:
        for cookie in ("", "lamina_view=x", client.cookie + "x", "bad[]=1; ="):
            answer, body = client.get("/api/jobs", Cookie=cookie)
            assert answer.status == 401
            assert json.loads(body)["error"]["remedy"]
        answer, _ = client.get(f"/?{client.address.query}", Cookie="")
        assert answer.status == 200
        assert "HttpOnly; SameSite=Strict" in answer.headers["Set-Cookie"]
        assert "no-store" in answer.headers["Cache-Control"]
        assert client.get("/api/jobs", Host="evil.example:80")[0].status == 403
        for other in ('{"a": "b c"}', "J\u00f6rg", "x[y"):  # of programs on other ports
            cookies = f"other={other}; {client.cookie}".encode("latin-1")
            assert client.get("/api/jobs", Cookie=cookies)[0].status == 200


def test_nothing_is_said_of_a_browser_that_hangs_up(tmp_path, capsys):
    scan = Volume(np.random.default_rng(0).random((1, 200, 200, 99), np.float32), np.eye(4))
    write_volume(scan, tmp_path / "scan.nii")
    with viewed(tmp_path / "scan.nii") as client:
        place = (client.address.hostname, client.address.port)
        asked = f"GET /api/jobs/local/files/scan.nii HTTP/1.1\r\nHost: {place[0]}:{place[1]}\r\n"
        with socket.create_connection(place) as browser:
            browser.sendall(f"{asked}Cookie: {client.cookie}\r\n\r\n".encode())
            assert browser.recv(9) == b"HTTP/1.1 "
        assert client.job()["name"] == "scan.nii"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["/static/../index.html", "/static/%2e%2e/__init__.py", "/x"])
def test_nothing_but_the_page_and_the_scan_is_served(phantom, path):
    with viewed(phantom[0]) as client:
        assert client.get("/static/app.js")[0].status == 200
        assert client.get(path)[0].status == 404


def test_what_was_written_goes_when_the_viewer_stops(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with viewed(phantom[0]):
        assert list(tmp_path.glob("lamina-view-*/scan.nii"))
    assert not list(tmp_path.glob("lamina-view-*"))


def test_structures_of_a_dicom_object_are_measured_even_where_others_hide_them(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_scans import STEP, ball, write_seg, write_series

    slices = write_series(tmp_path / "series")
    outer, inner = (ball(slices, (0, 35, 42), radius) for radius in (9, 5))
    segments = {"outer": outer, "inner": inner}
    path = tmp_path / "one.dcm"
    write_seg(path, slices, segments)
    with viewed(tmp_path / "series", path) as client:
        job = client.job()
        painted = read_volume(client.file("segmentation.nii", tmp_path)).array
    for structure in job["structures"]:
        voxels = np.count_nonzero(segments[structure["name"]])
        assert structure["size"] == pytest.approx(voxels * 1.5 * 2.0 * STEP / 1000, rel=1e-4)
    assert np.count_nonzero(painted == 2) == np.count_nonzero(inner)
    assert "overlap" in job["flags"][0]
    assert job["overlap"]


def test_pictures_keep_their_colours_and_are_measured_in_pixels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (3, 20, 14), np.uint8)
    write_volume(Volume(colours, PIXELS, unit="px"), tmp_path / "a.png")
    mask = np.uint8(255 * (colours[:1] > 128))
    write_volume(Volume(mask, PIXELS, unit="px"), tmp_path / "mask.png")
    with viewed(tmp_path / "a.png", tmp_path / "mask.png") as client:
        import nibabel

        shown = nibabel.load(client.file("scan.nii", tmp_path))
        job = client.job()
    array = np.asarray(shown.dataobj)[:, :, 0]
    assert np.array_equal(np.stack([array[band] for band in "RGB"]), colours)
    assert shown.header.get_xyzt_units()[0] == "unknown"
    assert [(s["size"], s["unit"]) for s in job["structures"]] == [((mask > 0).sum(), "px")]
    assert [f["kind"] for f in job["files"]] == ["scan", "segmentation"]


def test_radiographs_keep_their_size_and_name_no_side_of_the_body(tmp_path):
    film = Volume(np.ones((1, 20, 14), np.int16), np.diag([-0.3, -0.2, 1, 1]))
    write_volume(film, tmp_path / "film.nii")
    with viewed(tmp_path / "film.nii") as client:
        import nibabel

        shown = nibabel.load(client.file("scan.nii", tmp_path))
    assert shown.shape[:3] == (20, 14, 1)
    assert shown.header.get_xyzt_units()[0] == "unknown"
    np.testing.assert_allclose(shown.affine, film.affine)


def test_what_is_no_number_is_shown_as_the_lowest_value(tmp_path):
    array = np.ones((1, 6, 6, 6), np.float32)
    array[0, 0, 0, :2] = np.nan, np.inf
    array[0, 1] = -3
    write_volume(Volume(array, affine_from((1, 1, 1))), tmp_path / "odd.nii")
    with viewed(tmp_path / "odd.nii") as client:
        shown = read_volume(client.file("scan.nii", tmp_path)).array
    assert shown[0, 0, 0, :2].tolist() == [-3, -3]


def test_a_map_on_another_grid_is_shown_and_flagged(tmp_path, caplog):
    write_volume(Volume(np.ones((1, 8, 8, 8)), affine_from((1, 1, 1))), tmp_path / "a.nii")
    coarse = Volume(np.ones((1, 4, 4, 4), np.uint8), affine_from((2, 2, 2)))
    write_volume(coarse, tmp_path / "b.nii")
    with viewed(tmp_path / "a.nii", tmp_path / "b.nii") as client:
        job = client.job()
    assert "another grid" in job["flags"][0]
    assert job["structures"][0] | {"color": ""} == {
        "name": "label_1",
        "value": 1,
        "color": "",
        "size": pytest.approx(64 * 8 / 1000),
        "unit": "ml",
        "flags": [],
    }


def test_an_empty_map_has_no_structures(tmp_path):
    volume = Volume(np.zeros((1, 4, 4, 4), np.uint8), affine_from((1, 1, 1)))
    write_volume(volume, tmp_path / "a.nii")
    with viewed(tmp_path / "a.nii", tmp_path / "a.nii") as client:
        assert (client.job()["structures"], client.job()["flags"]) == (
            [],
            ["Nothing is segmented."],
        )


def test_what_is_no_segmentation_of_the_scan_is_refused(phantom, tmp_path):
    scan, label = phantom
    with pytest.raises(LabelError, match="different values"), viewed(label, scan):
        pass
    flat = Volume(np.zeros((1, 4, 4), np.uint8), PIXELS, unit="px")
    write_volume(flat, tmp_path / "flat.png")
    with pytest.raises(GeometryError, match="2 axes in px"), viewed(scan, tmp_path / "flat.png"):
        pass


def test_surfaces_are_made_when_they_are_asked_for(phantom, tmp_path):
    for package in ("skimage", "trimesh", "fast_simplification"):
        pytest.importorskip(package)
    with viewed(*phantom) as client:
        content = client.file("segmentation.glb", tmp_path).read_bytes()
    assert content[:4] == b"glTF"
    assert b'"liver"' in content


def test_the_verb_prints_the_address_and_ends_with_ctrl_c(cli, phantom, monkeypatch):
    def interrupt(server):
        raise KeyboardInterrupt

    opened = []

    def look(address):
        page = Path(urlsplit(address).path)
        opened.append((address, page.read_text(), page.stat().st_mode & 0o777))

    monkeypatch.setattr(ViewServer, "serve_forever", interrupt)
    monkeypatch.setattr(workflow.webbrowser, "open", look)
    done = cli("view", *phantom, "--no-browser", "--json")
    url = json.loads(done.stdout)["url"]
    assert (done.exit_code, opened) == (0, [])
    assert url.startswith("http://127.0.0.1:")
    done = cli("view", phantom[0], "--json")
    url = json.loads(done.stdout)["url"]
    ((address, page, mode),) = opened  # others can read a browser's command line
    assert (done.exit_code, mode) == (0, 0o600)
    assert url.partition("=")[2] not in address
    assert f'content="0; url={url}"' in page
    assert not Path(urlsplit(address).path).exists()


def test_a_port_that_is_taken_is_said(phantom):
    with (
        served(phantom[0]) as server,
        pytest.raises(FileError, match="cannot be served"),
        served(phantom[0], port=server.server_port),
    ):
        pass
