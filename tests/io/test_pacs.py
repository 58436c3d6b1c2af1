"""Speaking with an archive: a real Orthanc, and made-up servers that do what none should."""

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
import threading
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from dicom_scans import OBLIQUE, PATIENT, write_series
from lamina.errors import ConfigError, FileError, PacsError, UnreachableError
from lamina.io import read_volume
from lamina.io.derived import Producer, write_structures
from lamina.io.pacs import Access, Series, WebArchive, address_of, archive_at, instance_of
from lamina.labels import LabelSet

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomweb_client")
pytest.importorskip("pynetdicom")

ACCESS = Access(timeout=20)
SERIES, STUDY = "0020000E", "0020000D"


def sent_to(archive, files):
    told = {}
    archive.store(sorted(files), lambda path, error: told.update({path: error}))
    return told


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    slices = write_series(folder, OBLIQUE, SeriesDescription="CT Thorax", BodyPartExamined="CHEST")
    return slices, sorted(folder.iterdir())


def by_url(pacs, kind):
    return archive_at(pacs.url if kind == "web" else pacs.node, ACCESS)


@pytest.mark.parametrize("kind", ["web", "dimse"])
def test_what_is_stored_comes_back_as_it_was(pacs, series, tmp_path, kind):
    slices, files = series
    archive, web = by_url(pacs, kind), by_url(pacs, "web")
    archive.echo()
    assert not web.holds(instance_of(files[0]))
    assert sent_to(archive, files) == dict.fromkeys(files, "")
    assert sent_to(archive, files[:1]) == {files[0]: ""}  # again
    assert web.holds(instance_of(files[0]))
    (found,) = web.series({"StudyInstanceUID": slices[0].StudyInstanceUID})
    assert found == Series(
        uid=slices[0].SeriesInstanceUID,
        study=slices[0].StudyInstanceUID,
        modality="CT",
        description="CT Thorax",
        body_part="CHEST",
        instances=12,
    )
    assert web.fetch(found.study, found.uid, tmp_path / "back", 12) == 12
    for one in slices:
        back = pydicom.dcmread(tmp_path / "back" / f"{one.SOPInstanceUID}.dcm")
        assert back == one


@pytest.mark.parametrize("kind", ["web", "dimse"])
def test_a_damaged_file_is_told_and_the_others_go_on(pacs, series, tmp_path, kind):
    _, files = series
    bad = tmp_path / "series" / "notes.txt"
    bad.write_text("no object at all")
    told = sent_to(by_url(pacs, kind), [*files, bad])
    assert "DICOM" in told.pop(bad)
    assert told == dict.fromkeys(files, "")


@pytest.mark.parametrize("kind", ["web", "dimse"])
def test_a_file_without_the_mark_of_dicom_is_sent_if_it_tells_its_encoding(pacs, series, kind):
    slices, (bare, silent, *others) = series
    content = bare.read_bytes()
    bare.write_bytes(content[132:])
    header = pydicom.dcmread(silent)
    header.file_meta, header.preamble = pydicom.dataset.FileMetaDataset(), None
    header.save_as(silent, implicit_vr=False, little_endian=True, enforce_file_format=False)
    told = sent_to(by_url(pacs, kind), [bare, silent, *others])
    assert "does not say how it is encoded" in told.pop(silent)
    assert told == dict.fromkeys([bare, *others], "")
    assert len(pacs.holdings(slices[0].StudyInstanceUID, "CT")) == 11


def test_a_class_that_a_node_does_not_know_is_refused_in_words(pacs, series, tmp_path):
    slices, _ = series
    odd = slices[0]
    odd.SOPClassUID = odd.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.8.498.77"
    odd.save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    (why,) = sent_to(by_url(pacs, "dimse"), [tmp_path / "odd.dcm"]).values()
    assert "takes no objects of class 1.2.826" in why


def test_a_series_that_is_not_there_or_not_whole_leaves_nothing(pacs, series, tmp_path):
    slices, files = series
    web = by_url(pacs, "web")
    sent_to(web, files)
    study, uid = slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID
    with pytest.raises(PacsError, match="sends 12 of a series' 13 objects"):
        web.fetch(study, uid, tmp_path / "got", 13)
    with pytest.raises(PacsError, match="nothing there"):
        web.fetch(study, "1.2.3", tmp_path / "got")
    assert not (tmp_path / "got").exists()
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/dicom-web", "dicom://ANY@127.0.0.1:1"),
        *("http://nobody.invalid/dicom-web", "dicom://ANY@nobody.invalid:104"),
    ],
)
def test_an_archive_that_is_away_is_told_from_one_that_refuses(pacs, url, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UnreachableError, match=f"^{url.replace('.', '[.]')}: cannot be reached"):
        archive_at(url, ACCESS).echo()
    assert not [record for record in caplog.records if record.name != "asyncio"]


def test_a_password_is_asked_for(pacs, tmp_path):
    from orthanc import Orthanc

    users = {"AuthenticationEnabled": True, "RegisteredUsers": {"lamina": "s3cret"}}
    server = Orthanc(tmp_path / "server", 8043, 4243, **users)
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    server.start()
    try:
        archive_at(server.url, Access(user="lamina", secret=f"file:{secret}")).echo()
        for wrong in ({}, {"user": "other", "secret": f"file:{secret}"}):
            with pytest.raises(PacsError, match="does not let us in"):
                archive_at(server.url, Access(**wrong)).echo()
    finally:
        server.kill()


@pytest.fixture
def certified(tmp_path):
    """A certificate that nobody has signed but itself, and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    command = [
        *(program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=pacs"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_only_certificates_that_are_trusted_will_do(certified):
    certificate, _ = certified
    with answering(lambda path: results(), certified) as (url, asked):
        with pytest.raises(PacsError, match="certificate is not trusted"):
            web(url).echo()
        assert not asked
        web(url, ca=certificate).echo()
        assert asked


@contextmanager
def encrypting(port, certified):
    """Let those who speak TLS speak with a port; yield the port that they speak to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certified)
    listening, told = threading.Event(), {}

    async def pump(source, target):
        with suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def relay(reader, writer):
        behind, before = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, before), pump(behind, writer))

    async def listen():
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        told["stop"], told["loop"] = asyncio.Event(), asyncio.get_running_loop()
        told["port"] = server.sockets[0].getsockname()[1]
        listening.set()
        async with server:
            await told["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    assert listening.wait(10)
    try:
        yield told["port"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()


def test_a_real_archive_that_encrypts_is_spoken_with_by_both_protocols(
    pacs, certified, series, tmp_path
):
    from orthanc import Orthanc

    _, files = series
    server = Orthanc(tmp_path / "server", 8044, 4244, certified=certified)
    trusting = Access(ca=certified[0], timeout=20)
    server.start()
    try:
        with encrypting(8044, certified) as port:
            web = f"https://127.0.0.1:{port}/dicom-web"
            for place, url in enumerate((web, server.node)):
                archive_at(url, trusting).echo()
                sent = files[place : place + 3]
                assert sent_to(archive_at(url, trusting), sent) == dict.fromkeys(sent, "")
                by_name = url.replace("127.0.0.1", "localhost")  # the certificate has no name
                for stranger, access in ((url, ACCESS), (by_name, trusting)):
                    with pytest.raises(PacsError, match="trusted"):
                        archive_at(stranger, access).echo()
            assert all(archive_at(web, trusting).holds(instance_of(file)) for file in files[:4])
    finally:
        server.kill()


@contextmanager
def answering(answer, certified=None):
    """Serve DICOMweb by a function of the path; yield the address, and the requests' headers."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # that somebody hangs up is what is tested
    if certified:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certified)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"{'https' if certified else 'http'}://127.0.0.1:{server.server_port}/web", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def results(*uids):
    found = [{SERIES: {"vr": "UI", "Value": [uid]}, STUDY: {"Value": ["1.2"]}} for uid in uids]
    return 200, json.dumps(found).encode()


def web(url, **access):
    return WebArchive(address_of(url), Access(**{"timeout": 5} | access))


def test_searches_end_where_an_archive_knows_no_pages():
    with answering(lambda path: results("1.2.3", "1.2.4")) as (url, asked):
        assert [one.uid for one in web(url).series({})] == ["1.2.3", "1.2.4"]
    assert len(asked) == 2


def test_small_pages_are_put_together_and_counts_asked_for():
    def answer(path):
        if "/instances" in path:
            key = "00080018"
            found = [{key: {"Value": ["1.9"]}}] if "offset=0" in path else []
            return 200, json.dumps(found).encode()
        pages = {"offset=0": results("1.3"), "offset=1": results("1.4")}
        return next((page for key, page in pages.items() if key in path), results())

    with answering(answer) as (url, _):
        archive = web(url)
        found = archive.series({})
        assert [one.uid for one in found] == ["1.3", "1.4"]
        assert archive.count(found[0]) == 1


def test_an_object_that_is_neither_confirmed_nor_shown_is_not_stored(series):
    _, files = series
    for shown, why in ((b"[]", "does not say that it stored it"), (b"[{}]", "")):
        answers = {True: (200, shown), False: (202, b"{}")}
        with answering(lambda path, told=answers: told["/instances" in path]) as (url, _):
            (told,) = sent_to(web(url), files[:1]).values()
        assert told.endswith(f"{why}." if why else "")
        assert bool(told) == bool(why)


@pytest.mark.parametrize(
    ("status", "code", "shown", "why"),
    [
        (409, None, b"[{}]", ""),
        (409, None, b"[]", "refuses (HTTP 409)"),
        (200, 0x0111, b"[]", ""),
        (200, 0x0110, b"[{}]", ""),
        (200, 0xA700, b"[]", "does not store it (reason A700H)"),
    ],
)
def test_what_an_archive_has_already_is_no_failure(series, status, code, shown, why):
    _, files = series
    uid = {"vr": "UI", "Value": [instance_of(files[0]).uid]}
    failed = {"00081155": uid, "00081197": {"vr": "US", "Value": [code]}}
    told = {} if code is None else {"00081198": {"vr": "SQ", "Value": [failed]}}
    answers = {True: (200, shown), False: (status, json.dumps(told).encode())}
    with answering(lambda path: answers["/instances" in path]) as (url, _):
        (told,) = sent_to(web(url), files[:1]).values()
    assert why in told
    assert bool(told) == bool(why)


@pytest.mark.parametrize("kind", ["scan", "structures"])
def test_a_node_that_takes_only_the_default_encoding_gets_objects_in_it(series, tmp_path, kind):
    from pynetdicom import AE, evt

    _, (file, *_) = series
    if kind == "structures":
        pytest.importorskip("highdicom")
        scan, file = read_volume(file.parent), tmp_path / "seg.dcm"
        label = replace(scan, array=(scan.array > 0).astype(np.uint8))
        labels, producer = LabelSet(values={"liver": 1}), Producer(name="Lamina", version="0")
        write_structures(
            label, labels, file, kind="seg", scan=tmp_path / "series", producer=producer
        )
    sent = pydicom.dcmread(file)
    assert sent.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    got, node = [], AE()
    node.add_supported_context(sent.SOPClassUID, pydicom.uid.ImplicitVRLittleEndian)

    def keep(event):
        got.append((event.context.transfer_syntax, event.dataset))
        return 0

    server = node.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    try:
        archive = archive_at(f"dicom://127.0.0.1:{server.server_address[1]}", ACCESS)
        assert sent_to(archive, [file]) == {file: ""}
    finally:
        server.shutdown()
    ((encoding, dataset),) = got
    assert encoding == pydicom.uid.ImplicitVRLittleEndian
    dataset["PixelData"].VR = sent["PixelData"].VR  # pixels are words there (PS3.5, A.1)
    assert dataset == sent


def test_names_that_would_lead_out_of_a_folder_are_no_series():
    with answering(lambda path: results("../../etc", "1.2.3")) as (url, _):
        assert [one.uid for one in web(url).series({})] == ["1.2.3"]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b"", UnreachableError),
        (401, b"", PacsError),
        (500, b"PatientName=Nobody^Known", PacsError),
        (200, b"<html>Welcome</html>", PacsError),
        (200, b'{"0020000E": 5}', PacsError),
    ],
)
def test_odd_answers_become_one_error_that_quotes_nothing(status, body, kind, caplog):
    caplog.set_level(logging.DEBUG)
    with answering(lambda path: (status, body)) as (url, _):
        with pytest.raises(PacsError) as raised:
            web(url).series({"PatientID": PATIENT["PatientID"]})
        assert type(raised.value) is kind
        for told in (str(raised.value), caplog.text):
            assert "Nobody" not in told
            assert PATIENT["PatientID"] not in told


def test_an_archive_that_says_nothing_is_not_waited_for_forever():
    wait = threading.Event()

    def answer(path):
        wait.wait(10)
        return results()

    with answering(answer) as (url, _):
        with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
            web(url, timeout=0.2).echo()
        wait.set()


def test_tokens_are_sent_and_never_said(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    monkeypatch.setenv("PACS_TOKEN", "0ther")
    with answering(lambda path: results()) as (url, asked):
        archive = web(url, secret=f"file:{token}")
        archive.echo()
        token.write_text("renewed")
        archive.echo()
        web(url, secret="env:PACS_TOKEN").echo()
    sent = [headers["Authorization"] for _, headers in asked]
    assert sent == ["Bearer t0ken", "Bearer renewed", "Bearer 0ther"]
    assert not any(secret in caplog.text + repr(archive.access) for secret in ("t0ken", "0ther"))


@pytest.mark.parametrize(
    "url",
    [
        *("pacs.example", "ftp://pacs.example", "https://", "https://h:port/x"),
        *("https://me:s3cret@pacs.example", "https://pacs.example/?token=s3cret"),
        *("dicom://a-title-that-is-too-long@h", "dicom://a@h/path", "dicom://\u00e4@h"),
    ],
)
def test_addresses_that_are_none_or_hold_a_secret_are_refused(url):
    with pytest.raises(ConfigError, match="--url") as raised:
        address_of(url)
    assert "s3cret" not in str(raised.value)


def test_addresses_are_written_as_they_were():
    for url in (
        *("https://pacs.example/dicom-web", "http://127.0.0.1:8042/dicom-web", "http://[::1]:80"),
        *("dicom://ORTHANC@pacs.example:4242", "dicoms://A@pacs.example:2762"),
        *("dicom://MY%20PACS@pacs.example:104", "dicom://A%2FB%40C@pacs.example:104"),
    ):
        assert str(address_of(url)) in (url, url.removesuffix(":80"))
    assert address_of("dicom://MY%20PACS@pacs.example").title == "MY PACS"
    assert str(address_of("dicom://pacs.example")) == "dicom://ANY-SCP@pacs.example:104"


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ({"secret": "s3cret"}, "must say where the secret is"),
        ({"user": "me"}, "needs --secret"),
        ({"timeout": 0}, "above 0"),
        *(({"title": title}, "1 to 16 ASCII") for title in ("x" * 17, "", " ", "\u00e4", "a\\b")),
    ],
)
def test_access_that_cannot_work_is_refused(access, said):
    with pytest.raises(ConfigError, match=said) as raised:
        Access(**access)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "given", "said"),
    [
        (
            "dicom://A@pacs.example:104",
            "user secret",
            "--secret: dicom://A@pacs.example:104 has no",
        ),
        ("dicoms://A@pacs.example:104", "secret", "--secret: dicoms"),
        ("dicom://A@pacs.example:104", "ca", "--ca: dicom://A@pacs.example:104 is not encrypted"),
        ("http://pacs.example/rs", "ca", "--ca: http://pacs.example/rs is not encrypted"),
        ("https://pacs.example/rs", "user secret ca", None),
        ("dicoms://A@pacs.example:104", "ca", None),
        ("http://pacs.example/rs", "user secret", None),
    ],
)
def test_access_that_an_address_has_no_use_for_is_refused(tmp_path, url, given, said):
    (tmp_path / "ca.pem").touch()
    told = {"user": "me", "secret": "env:S3CRET", "ca": tmp_path / "ca.pem"}
    access = Access(**{name: told[name] for name in given.split()})
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        archive_at(url, access)


def test_secrets_that_are_not_there_are_missed(tmp_path):
    for where in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            Access(secret=f"file:{where}").read_secret()
    with pytest.raises(ConfigError, match="NOT_SET_AT_ALL: the variable is not set"):
        Access(secret="env:NOT_SET_AT_ALL").read_secret()
    (tmp_path / "renewed").write_text("")  # a loop waits, as where it is not let in
    with pytest.raises(PacsError, match="is empty"):
        web("http://127.0.0.1:1/x", secret=f"file:{tmp_path / 'renewed'}").echo()
    with pytest.raises(FileError, match="no such file of certificates"):
        Access(ca=tmp_path / "ca.pem")
