"""3D Slicer's MONAI Label module gets what it asks for; so does its real client, where at hand."""

import gzip
import importlib.util
import json
import os
import shutil
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from pretend_jobs import MODELS
from served import BASE, TOKEN, TestClient

from lamina.io import read_labels, write_volume
from lamina.serve.schemas import Label
from lamina.serve.slicer.answers import answered
from lamina.serve.slicer.datastore import SESSION_S, Datastore
from lamina.volume import Volume

URL = "/monailabel"
INSTALLED = Path(sys.prefix) / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"


@pytest.fixture(autouse=True, scope="module")
def _empty(client):
    """Other tests may have left images."""
    shutil.rmtree(client.service.datastore.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def label_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("label") / "l.nii.gz"
    array = np.random.default_rng(0).integers(0, 3, (1, 8, 7, 6), np.uint8)
    write_volume(Volume(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path.read_bytes()


def listed(client):
    return [job["id"] for job in client.get("/api/jobs").json()]


def parts(answer):
    """Take a form apart: what is told, the file's name, the file."""
    boundary = answer.headers["content-type"].partition("boundary=")[2]
    first, second = answer.content.split(f"--{boundary}".encode())[1:3]
    told = json.loads(first.partition(b"\r\n\r\n")[2])
    head, _, content = second.partition(b"\r\n\r\n")
    return told, head.decode().partition('filename="')[2].partition('"')[0], content[:-2]


def test_the_server_describes_itself(client):
    found = client.get(f"{URL}/info/").json()
    assert "config" not in found
    assert found["labels"] == ["rim", "core"]
    model = found["models"]["pretend"]
    assert (model["type"], model["dimension"]) == ("segmentation", 3)
    assert model["labels"] == ["rim", "core"]
    assert (found["trainers"], found["datastore"]["total"]) == ({}, 0)


def test_slicer_logs_in_with_the_token_as_password(client):
    stranger = TestClient(client.app, BASE)
    assert stranger.get(f"{URL}/auth/").json()["enabled"] is True
    wrong = stranger.post(f"{URL}/auth/token", data={"username": "a", "password": "b"})
    assert wrong.status_code == 401
    given = {"username": "anybody", "password": TOKEN, "grant_type": "password"}
    token = stranger.post(f"{URL}/auth/token", data=given).json()
    header = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    assert stranger.get(f"{URL}/auth/token/valid").status_code == 401
    assert stranger.get(f"{URL}/auth/token/valid", headers=header).status_code == 200


def test_a_session_is_segmented_and_leaves_no_job(client, scan_bytes, tmp_path):
    before = listed(client)
    files = {"files": ("scan.nii.gz", scan_bytes)}
    session = client.put(f"{URL}/session/", files=files, data={"client_id": "x"}).json()
    assert client.get(f"{URL}/session/{session['session_id']}").status_code == 200
    asked = {"params": json.dumps({"result_extension": ".nrrd", "result_dtype": "uint8"})}
    url = f"{URL}/infer/pretend?image=x&session_id={session['session_id']}"
    told, name, content = parts(client.post(url, files={"params": (None, asked["params"])}))
    assert (told["label_names"], name) == ({"core": 7}, "segmentation.nrrd")
    (tmp_path / name).write_bytes(content)
    found = read_labels(tmp_path / name)
    assert np.allclose(found.affine, np.diag([1, 2, 3, 1]))
    assert set(np.unique(found.array)) == {0, 7}
    assert client.delete(f"{URL}/session/{session['session_id']}").status_code == 200
    assert client.get(f"{URL}/session/{session['session_id']}").status_code == 404
    assert listed(client) == before
    assert not list((client.service.settings.data / "slicer" / "incoming").iterdir())


def test_an_image_of_the_datastore_is_segmented_labelled_and_not_offered_again(client, scan_bytes):
    odd = "../Case 7/ä"
    add = client.put(
        f"{URL}/datastore/", params={"image": odd}, files={"file": ("a.nii.gz", scan_bytes)}
    )
    assert add.json() == {"image": odd}
    assert client.post(f"{URL}/activelearning/first", json={}).json()["id"] == odd
    answer = client.post(
        f"{URL}/infer/pretend", params={"image": odd}, files={"params": (None, "{}")}
    )
    assert parts(answer)[1] == "segmentation.nii.gz"
    label = {"label": ("l.nii.gz", parts(answer)[2]), "params": (None, '{"label_info": []}')}
    saved = client.put(f"{URL}/datastore/label", params={"image": odd}, files=label)
    assert saved.json()["tag"] == "final"
    kept = client.get(f"{URL}/datastore/?output=all").json()["objects"][odd]
    assert kept["labels"]["final"]["info"]["label_info"] == []
    kept = client.get(f"{URL}/datastore/label", params={"label": odd, "tag": "final"})
    assert kept.content == parts(answer)[2]
    assert client.get(f"{URL}/datastore/image", params={"image": odd}).content == scan_bytes
    assert client.post(f"{URL}/activelearning/first").json() == {}
    assert client.get(f"{URL}/datastore/").json()["completed"] == 1
    assert client.delete(f"{URL}/datastore/", params={"id": odd}).status_code == 200
    assert client.get(f"{URL}/datastore/image", params={"image": odd}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "files", "status"),
    [
        ("POST", "/infer/other?image=a", {"params": (None, "{}")}, 404),
        ("POST", "/infer/pretend?image=a", {"params": (None, "{}")}, 404),
        ("POST", "/infer/pretend?session_id=a", {"params": (None, "{}")}, 404),
        ("POST", "/infer/pretend?image=a", {"params": (None, "{")}, 422),
        ("POST", "/infer/pretend?image=a", {"params": (None, "[]")}, 422),
        ("PUT", "/datastore/?image=a", {"file": ("a.txt", b"a")}, 422),
        ("PUT", "/datastore/?image=a", {"other": ("a.nii", b"a")}, 422),
        ("PUT", "/datastore/label?image=none", {"label": ("a.nii", b"a")}, 404),
        ("POST", "/activelearning/random", None, 404),
        ("GET", "/train/?check_if_running=true", None, 404),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(client, method, path, files, status):
    answer = client.request(method, URL + path, files=files)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    incoming = client.service.settings.data / "slicer" / "incoming"
    assert not incoming.exists() or not list(incoming.iterdir())


ENDLESS = '{"a":' + "[" * 400 + "]" * 400 + "}"


@pytest.mark.parametrize("params", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', ENDLESS])
def test_what_could_not_be_told_again_is_refused(client, scan_bytes, label_bytes, params):
    client.put(f"{URL}/datastore/?image=a", files={"file": ("a.nii.gz", scan_bytes)})
    label = {"label": ("l.nii.gz", label_bytes), "params": (None, params)}
    assert client.put(f"{URL}/datastore/label?image=a", files=label).status_code == 422
    assert client.get(f"{URL}/datastore/?output=all").json()["objects"]["a"]["labels"] == {}
    client.delete(f"{URL}/datastore/?id=a")


def test_an_image_with_labels_is_replaced_by_no_other(client, scan_bytes, label_bytes):
    def send(content):
        files = {"file": ("ct1.nii.gz", content)}
        return client.put(f"{URL}/datastore/?image=ct1", files=files)

    def image():
        return client.get(f"{URL}/datastore/image?image=ct1").content

    other = gzip.compress(gzip.decompress(scan_bytes)[:-4] + bytes(4))
    send(other)
    assert send(scan_bytes).status_code == 200
    assert image() == scan_bytes
    client.put(f"{URL}/datastore/label?image=ct1", files={"label": ("l.nii.gz", label_bytes)})
    assert send(scan_bytes).json() == {"image": "ct1"}
    refused = send(other)
    assert refused.status_code == 409
    assert "byte for byte" in refused.json()["error"]["message"]
    assert image() == scan_bytes
    assert client.get(f"{URL}/datastore/label?label=ct1").content == label_bytes
    client.delete(f"{URL}/datastore/?id=ct1")
    assert send(other).status_code == 200
    client.delete(f"{URL}/datastore/?id=ct1")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"id": "damaged"}'])
def test_an_image_whose_entry_is_damaged_hides_no_other_and_can_be_removed(
    client, scan_bytes, label_bytes, caplog, damage
):
    store = client.service.datastore
    for image in ("damaged", "sound"):
        files = {"file": ("a.nii.gz", scan_bytes)}
        client.put(f"{URL}/datastore/?image={image}", files=files)
    label = {"label": ("l.nii.gz", label_bytes)}
    client.put(f"{URL}/datastore/label?image=damaged", files=label)
    folder = store.find("damaged").folder
    (folder / "entry.json").write_text(damage)
    assert client.get(f"{URL}/info/").json()["datastore"]["total"] == 1
    assert list(client.get(f"{URL}/datastore/?output=all").json()["objects"]) == ["sound"]
    assert f"{folder.name}/entry.json: damaged" in caplog.text
    assert client.get(f"{URL}/datastore/image?image=damaged").status_code == 404
    again = {"file": ("a.nii.gz", scan_bytes)}
    assert client.put(f"{URL}/datastore/?image=damaged", files=again).status_code == 409
    assert list(folder.glob("label-*"))
    assert client.delete(f"{URL}/datastore/?id=damaged").status_code == 200
    assert client.delete(f"{URL}/datastore/?id=damaged").status_code == 404
    assert client.put(f"{URL}/datastore/?image=damaged", files=again).status_code == 200
    for image in ("damaged", "sound"):
        client.delete(f"{URL}/datastore/?id={image}")


def test_a_label_takes_the_place_of_one_in_another_format(
    client, scan_bytes, label_bytes, tmp_path
):
    write_volume(Volume(np.ones((1, 8, 7, 6), np.uint8), np.eye(4)), tmp_path / "l.nrrd")
    client.put(f"{URL}/datastore/?image=a", files={"file": ("a.nii.gz", scan_bytes)})
    for name, content in [
        ("l.nii.gz", label_bytes),
        ("l.nrrd", (tmp_path / "l.nrrd").read_bytes()),
    ]:
        label = {"label": (name, content)}
        assert client.put(f"{URL}/datastore/label?image=a", files=label).status_code == 200
        assert client.get(f"{URL}/datastore/label?label=a").content == content
    assert len(list(client.service.datastore.find("a").folder.glob("label-*"))) == 1
    client.delete(f"{URL}/datastore/?id=a")


def packed(array):
    with TemporaryDirectory() as folder:
        write_volume(Volume(array, np.eye(4)), Path(folder, "l.nii.gz"))
        return Path(folder, "l.nii.gz").read_bytes()


NOISE = np.random.default_rng(0).integers(0, 9, (1, 16, 16, 16), np.uint8)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"l{suffix}", b"") for suffix in (".nii.gz", ".nrrd")),
        *((f"l{suffix}", b"junk") for suffix in (".exe", ".npy", ".png", ".nhdr", ".nii.gz")),
        pytest.param("l.nii.gz", packed(NOISE)[:1000], id="cut"),
        pytest.param("l.nii.gz", packed(NOISE / np.float32(2)), id="fractions"),
    ],
)
def test_what_is_no_label_leaves_the_one_that_is_there(
    client, scan_bytes, label_bytes, name, content
):
    client.put(f"{URL}/datastore/?image=a", files={"file": ("a.nii.gz", scan_bytes)})
    client.put(f"{URL}/datastore/label?image=a", files={"label": ("l.nii.gz", label_bytes)})
    answer = client.put(f"{URL}/datastore/label?image=a", files={"label": (name, content)})
    assert answer.status_code == 422
    assert answer.json()["error"]["remedy"]
    assert client.get(f"{URL}/datastore/label?label=a").content == label_bytes
    client.delete(f"{URL}/datastore/?id=a")


def test_labels_that_come_at_the_same_time_are_all_kept(client, scan_bytes, label_bytes, tmp_path):
    store = client.service.datastore
    uploads = [tmp_path / f"{number}.nii.gz" for number in range(32)]
    for upload in uploads:
        upload.write_bytes(label_bytes)
    (tmp_path / "image.nii.gz").write_bytes(scan_bytes)
    store.add("many", tmp_path / "image.nii.gz", "image.nii.gz")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda upload: store.label("many", upload.stem, upload, {}), uploads))
    assert set(store.find("many").labels) == {upload.stem for upload in uploads}
    store.remove("many")


def test_images_that_nobody_uses_any_more_go(tmp_path):
    store = Datastore(tmp_path)
    for name in ("old.nii", "used.nii", "kept.nii"):
        (tmp_path / name).write_bytes(b"voxels")
    old, used = (store.start_session(tmp_path / n, n) for n in ("old.nii", "used.nii"))
    store.add("kept", tmp_path / "kept.nii", "kept.nii")
    cut_off = store.incoming()
    cut_off.mkdir(parents=True)
    long_ago = time.time() - 2 * SESSION_S
    for path in (cut_off, *(p for f in (old, used) for p in (f.image, f.folder / "entry.json"))):
        os.utime(path, (long_ago, long_ago))
    for entry in (old, used):
        os.utime(entry.folder, (long_ago, long_ago))
    store.session(used.image_id)
    store.sweep()
    assert not cut_off.exists()
    assert not old.folder.exists()
    assert store.session(used.image_id).image.is_file()
    assert [entry.image_id for entry in store.entries()] == ["kept"]


def test_what_slicer_sends_counts_as_waiting(client, scan_bytes):
    service, counted = client.service, []
    store, taken = service.datastore, service.datastore.start_session

    def counting(*arguments):
        counted.append(len(service.uploading))
        return taken(*arguments)

    store.start_session = counting
    try:
        client.put(f"{URL}/session/", files={"files": ("scan.nii.gz", scan_bytes)})
    finally:
        del store.start_session
    assert counted == [1]
    assert not service.uploading


def test_a_scan_that_cannot_be_segmented_is_an_error_with_its_reason(client, scan_bytes):
    files = {"file": ("damaged.nii.gz", scan_bytes), "params": (None, "{}")}
    answer = client.post(f"{URL}/infer/pretend?image=a", files=files)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "damaged.nii.gz: is damaged."


def test_structures_are_numbered_anew_where_0_is_one_of_them(tmp_path):
    path = tmp_path / "segmentation.nii.gz"
    write_volume(Volume(np.uint8([[[[0, 5], [9, 9]]]]), np.eye(4)), path)
    labels = [Label(name=n, value=v, color="#000000") for n, v in (("a", 0), ("b", 5), ("c", 8))]
    told, name, content = answered({"flags": []}, path, labels, {"result_extension": "../x"})
    assert told["label_names"] == {"a": 1, "b": 2}
    (tmp_path / "again.nii.gz").write_bytes(content)
    assert read_labels(tmp_path / "again.nii.gz").array.tolist() == [[[[1, 2], [0, 0]]]]
    assert name == "segmentation.nii.gz"


@pytest.fixture(scope="module")
def slicer(request):
    """Slicer's own client, which is never part of this repository."""
    file = Path(request.config.getoption("slicer_client") or INSTALLED)
    if not file.is_file():
        pytest.skip(f"{file} is not there; MONAI Label brings it, or name it with --slicer-client")
    pytest.importorskip("requests")
    spec = importlib.util.spec_from_file_location("slicer_client", file)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports cgi, which Python 3.13 has no more
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            pytest.skip(f"the client needs {error.name}")
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_real_client_is_served(slicer, listening, scan_bytes, tmp_path):
    """What the module's buttons call, each with a client of its own, as the module does."""
    given = {}

    def calling():
        fresh = slicer.MONAILabelClient(listening + URL, str(tmp_path), "user-xyz")
        assert fresh.auth_enabled()
        if not given:
            given.update(fresh.auth_token("user-xyz", TOKEN))
        fresh.update_auth(given)
        assert fresh.auth_valid_token()
        return fresh

    assert list(calling().info()["models"]) == list(MODELS)
    scan = tmp_path / "Case 7.nii.gz"
    scan.write_bytes(scan_bytes)
    params = {"result_extension": ".nrrd", "result_dtype": "uint8"}
    session = calling().create_session(str(scan))["session_id"]
    assert calling().get_session(session)["name"] == session
    file, told = calling().infer("pretend", "Case 7", dict(params), session_id=session)
    assert told["label_names"] == {"core": 7}
    assert set(np.unique(read_labels(file).array)) == {0, 7}
    assert file.endswith(".nrrd")
    calling().remove_session(session)
    with pytest.raises(slicer.MONAILabelClientException):
        calling().get_session(session)

    assert calling().upload_image(str(scan), "Case 7")["image"] == "Case 7"
    assert calling().next_sample("first", {})["id"] == "Case 7"
    file, _ = calling().infer("pretend", "Case 7", dict(params))
    calling().save_label("Case 7", file, params={"label_info": [{"name": "core", "idx": 1}]})
    labels = calling().datastore()["objects"]["Case 7"]["labels"]
    assert labels["final"]["info"]["label_info"] == [{"name": "core", "idx": 1}]
    kept = calling().download_label("Case 7", "final")
    assert Path(kept).read_bytes() == Path(file).read_bytes()
    assert calling().info()["datastore"]["completed"] == 1
    assert not calling().train_status(check_if_running=True)
    with pytest.raises(slicer.MONAILabelClientException) as error:
        calling().infer("gone", "Case 7", dict(params))
    assert "no such model" in error.value.msg
