"""The loop against a real Orthanc: nothing is stored twice, nothing is lost, whoever is killed."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from contextlib import closing
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from dicom_scans import OBLIQUE, PATIENT, write_enhanced, write_series
from lamina.bundle import save_bundle
from lamina.errors import (
    ConfigError,
    DiskFullError,
    FileError,
    GeometryError,
    PacsError,
    UnreachableError,
)
from lamina.files import atomic_path, locked
from lamina.folders.model import load
from lamina.io.pacs import Access, Series, WebArchive, address_of, archive_at
from lamina.workflows.pacs import loop, transfer
from lamina.workflows.pacs import watch as verb
from lamina.workflows.pacs.loop import Pace, Watcher
from lamina.workflows.pacs.rule import Rule
from lamina.workflows.pacs.state import LONGEST_DELAY_S, State
from lamina.workflows.pacs.watch import _archives, segment_series, status, watch
from lamina.workflows.steps.output import output_of
from lamina.workflows.steps.quality import CheckedModel
from small_bundles import small_bundle

pydicom = pytest.importorskip("pydicom")
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage  # noqa: E402

pytest.importorskip("highdicom")
pytest.importorskip("dicomweb_client")
pytest.importorskip("pynetdicom")

ACCESS = Access(timeout=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny network that nobody trained."""
    file = tmp_path_factory.mktemp("model") / "tiny.lamina"
    save_bundle(small_bundle("lightmedseg", roi_size=(16, 16, 32)), file)
    return file


@pytest.fixture(scope="module")
def segment(model):
    return partial(segment_series, CheckedModel.of(load(model)), output_of("seg"), "f" * 64)


class Stop(Exception):
    """Ends the endless loop of a test."""


class Ward:
    """What a test has of an archive: its own series, told by their description, and a clock."""

    def __init__(self, pacs, folder, name):
        self.pacs, self.folder, self.rule = pacs, folder, Rule(description=(name,))
        self.now, self.lines = time.time(), []

    def arrives(self, slices=12, only=None, **tags):
        """Store a series in a study of its own; return the study."""
        folder = self.folder / f"scan{len(list(self.folder.glob('scan*')))}"
        tags = {"SeriesDescription": self.rule.description[0]} | tags
        headers = write_series(folder, size=(16, 16, slices), PixelSpacing=[1, 1], **tags)
        uids = {headers[place].SOPInstanceUID for place in only or range(slices)}
        files = sorted(folder.iterdir())
        self.push([file for file in files if pydicom.dcmread(file).SOPInstanceUID in uids])
        self.files = files
        return headers[0].StudyInstanceUID

    def push(self, files):
        assert transfer.push(self.pacs.url, files, access=ACCESS).stored == len(files)

    def watcher(self, table, segment, pause=None, settle=0, tries=3, target=None):
        archive = WebArchive(address_of(self.pacs.url), ACCESS)
        return Watcher(
            archive=archive,
            target=target or archive,
            segment=segment,
            model="f" * 64,
            folder=self.folder / "state",
            state=table,
            rule=self.rule,
            pace=Pace(every=30, settle=settle, tries=tries),
            tell=self.lines.append,
            clock=lambda: self.now,
            pause=pause or self.wait,
        )

    def wait(self, seconds):
        self.now += seconds

    def once(self, segment, **options):
        with self.table() as table:
            self.watcher(table, segment, **options).once()
        return self.entries

    def table(self):
        (self.folder / "state").mkdir(exist_ok=True)
        return closing(State(self.folder / "state", "seg"))

    @property
    def entries(self):
        return status(self.folder / "state").entries

    def segmentations(self, study):
        return self.pacs.holdings(study, "SEG")

    def segmentation(self, study):
        """Return the only one of a study, and its series, as the archive has them."""
        archive, folder = WebArchive(address_of(self.pacs.url), ACCESS), self.folder / "back"
        (seg,) = (s for s in archive.series({"StudyInstanceUID": study}) if s.modality == "SEG")
        archive.fetch(study, seg.uid, folder)
        (file,) = folder.iterdir()
        return pydicom.dcmread(file), seg

    def left(self):
        """Return the files beside the table."""
        state = self.folder / "state"
        return sorted(p.name for name in ("outbox", "spool") for p in (state / name).iterdir())


@pytest.fixture
def ward(pacs, tmp_path, request):
    return Ward(pacs, tmp_path, f"scan of {request.node.name[-50:]}".replace("[", " ").strip("]"))


def test_a_series_is_segmented_and_stored_once(ward, segment):
    study = ward.arrives()
    for _ in range(2):
        (entry,) = ward.once(segment)
        assert (entry.status, entry.tries, entry.instances, entry.reason) == ("stored", 1, 12, "")
    (found,) = ward.segmentations(study)
    assert found["SOPInstanceUID"] == entry.object
    assert ward.left() == []


def test_a_scan_unlike_those_of_training_is_told_of(ward):
    model = CheckedModel.of(load(Path("hippocampus")))
    ward.arrives()
    (entry,) = ward.once(partial(segment_series, model, output_of("seg"), "f" * 64))
    assert entry.status == "stored"
    assert "in training" in entry.flags
    assert any("unlike the scans of training" in line for line in ward.lines)


def test_what_is_stored_lies_on_the_series(ward, segment, tmp_path):
    study = ward.arrives()
    ward.once(segment)
    pulled = transfer.pull(ward.pacs.url, tmp_path / "back", Rule(), access=ACCESS, study=study)
    (ct,) = pulled.series  # what holds no image is not meant
    found, seg = ward.segmentation(study)
    assert not Rule().matches(seg, 1)
    referred = found.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == ct.series
    assert len(referred.ReferencedInstanceSequence) == ct.instances == 12
    assert found.PatientID == PATIENT["PatientID"]


@pytest.mark.parametrize(
    ("modality", "sop_class"), [("CT", EnhancedCTImageStorage), ("MR", EnhancedMRImageStorage)]
)
def test_an_enhanced_series_goes_round_as_one_object(ward, segment, tmp_path, modality, sop_class):
    tags = {"SeriesDescription": ward.rule.description[0], "Modality": modality}
    slices = write_series(tmp_path / "slices", OBLIQUE, size=(16, 16, 9), **tags)
    order = [4, 0, 8, 2, 6, 1, 3, 5, 7]
    enhanced = write_enhanced(tmp_path / "enhanced.dcm", slices, order, sop_class)
    ward.push([tmp_path / "enhanced.dcm"])
    (entry,) = ward.once(segment)
    assert (entry.status, entry.instances) == ("stored", 1)
    found, _ = ward.segmentation(enhanced.StudyInstanceUID)
    assert found.NumberOfFrames > 0
    for group in found.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID
        frame = slices[order[source.ReferencedFrameNumber - 1]]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert place == pytest.approx(frame.ImagePositionPatient, abs=1e-3)


def test_a_series_is_taken_once_it_has_come_in_completely(ward, segment):
    study = ward.arrives(12, only=range(6))
    assert [entry.status for entry in ward.once(segment, settle=60, pause=lambda _: None)] == [
        "waiting"
    ]
    ward.now += 50
    ward.push(ward.files)
    ward.once(segment, settle=60, pause=lambda _: None)
    ward.now += 50
    (entry,) = ward.once(segment, settle=60, pause=lambda _: None)
    assert (entry.status, entry.instances) == ("waiting", 12)
    ward.now += 10
    (entry,) = ward.once(segment, settle=60)
    assert (entry.status, entry.instances) == ("stored", 12)
    assert len(ward.segmentations(study)) == 1


def test_once_waits_for_what_is_coming_in(ward, segment):
    ward.arrives()
    began = ward.now
    (entry,) = ward.once(segment, settle=60)
    assert (entry.status, ward.now - began) == ("stored", 60)


def test_a_series_that_grows_later_is_segmented_anew(ward, segment):
    study = ward.arrives(12, only=range(8))
    ward.once(segment)
    ward.push(ward.files)
    (entry,) = ward.once(segment)
    assert (entry.status, entry.instances) == ("stored", 12)
    assert len(ward.segmentations(study)) == 2


def test_a_series_that_cannot_be_segmented_holds_up_nobody(ward, segment):
    gap = ward.arrives(12, only=[*range(5), *range(8, 12)])
    good = ward.arrives()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        ward.now += 3600
        if len(pauses) == 5:
            raise Stop

    with ward.table() as table, pytest.raises(Stop):
        ward.watcher(table, segment, pause=pause).forever()
    entries = {entry.study: entry for entry in ward.entries}
    assert (entries[good].status, entries[gap].status) == ("stored", "failed")
    assert entries[gap].tries == 3
    assert entries[gap].reason.startswith("has a gap of 10 mm between slices 5 and 6 of 9")
    assert (len(ward.segmentations(good)), len(ward.segmentations(gap))) == (1, 0)
    ward.push(ward.files)
    with ward.table() as table:
        table.retry(ward.now)
    assert {entry.status for entry in ward.entries} == {"stored", "waiting"}


def test_what_is_wrong_with_a_slice_is_told_without_its_name(ward, segment):
    ward.arrives()

    def stumble(folder, path):
        raise FileError(f"{next(folder.iterdir())}: lies askew.", remedy="Send it again.")

    (entry,) = ward.once(stumble, tries=1)
    assert entry.reason == "lies askew. Send it again."
    assert not any("spool" in line for line in ward.lines)


def test_a_fault_that_nobody_thought_of_is_told_without_what_it_says(ward, segment):
    bad, good = ward.arrives(), ward.arrives()

    def stumble(folder, path):
        if pydicom.dcmread(next(folder.iterdir())).StudyInstanceUID == bad:
            raise ValueError(f"no number: {PATIENT['PatientName']}")
        return segment(folder, path)

    found = {entry.study: entry for entry in ward.once(stumble, tries=1)}
    assert (found[good].status, found[bad].status) == ("stored", "failed")
    assert found[bad].reason == "unexpected ValueError"
    assert not any(PATIENT["PatientName"] in line for line in ward.lines)
    assert (ward.folder / "state" / "state.sqlite").stat().st_mode & 0o077 == 0


def test_secrets_are_for_one_archive_alone(model, tmp_path, monkeypatch):
    asked = []

    def reached(url, access):
        asked.append((url, access.secret, access.user))
        raise Stop

    monkeypatch.setattr("lamina.workflows.pacs.watch.archive_at", reached)
    own = Access(user="research", secret="env:OTHER")
    for access in (None, own):
        with pytest.raises(Stop):
            watch(
                model,
                "https://pacs.example/dicom-web",
                tmp_path / "state",
                Rule(),
                access=Access(user="lamina", secret="env:CLINIC"),
                pace=Pace(),
                store_url="https://research.example/dicom-web",
                store_access=access,
                tell=print,
            )
    url = "https://research.example/dicom-web"
    assert asked == [(url, "", ""), (url, "env:OTHER", "research")]


@pytest.mark.parametrize(
    ("url", "store_url", "trusted"),
    [
        ("https://a/rs", "dicom://A@b:104", ("a",)),
        ("http://a/rs", "https://b/rs", ("b",)),
        ("https://a/rs", "dicoms://A@b:104", ("a", "b")),
    ],
)
def test_certificates_are_for_the_archives_that_encrypt(tmp_path, url, store_url, trusted):
    (tmp_path / "ca.pem").touch()
    access = Access(ca=tmp_path / "ca.pem")
    for own in (None, access):
        archives = _archives(url, access, store_url, own)
        assert tuple(one.address.host for one in archives if one.access.ca) == trusted
    with pytest.raises(ConfigError, match="--ca"):
        _archives("http://a/rs", access, "dicom://A@b:104", None)


def test_the_archive_may_be_killed_in_the_middle(ward, segment):
    studies = [ward.arrives() for _ in range(2)]
    killed, pauses = [], []

    def segment_and_kill(folder, path):
        if not killed:
            ward.pacs.kill()
            killed.append(True)
        return segment(folder, path)

    def pause(seconds):
        pauses.append(seconds)
        assert len(pauses) < 5, ward.lines
        if len(pauses) == 2:  # still away at the first look after
            ward.pacs.start()
        if {entry.status for entry in ward.entries} == {"stored"}:
            raise Stop

    with ward.table() as table, pytest.raises(Stop):
        ward.watcher(table, segment_and_kill, pause=pause).forever()
    assert pauses == [1, 2, 30]
    assert [entry.tries for entry in ward.entries] == [1, 1]
    assert [len(ward.segmentations(study)) for study in studies] == [1, 1]
    assert any("cannot be reached" in line for line in ward.lines)
    assert "answers again" in ward.lines[-1]


def test_an_archive_that_is_away_at_the_start_is_waited_for_unless_once(ward, segment):
    ward.arrives()
    ward.pacs.kill()
    with ward.table() as table, pytest.raises(UnreachableError):
        ward.watcher(table, segment).once()

    def pause(seconds):
        if seconds == 30:
            raise Stop
        ward.pacs.start()

    with ward.table() as table, pytest.raises(Stop):
        ward.watcher(table, segment, pause=pause).forever()
    assert [entry.status for entry in ward.entries] == ["stored"]


def test_an_archive_that_refuses_is_not_waited_for_at_the_start(ward, segment):
    with ward.table() as table:
        watcher = ward.watcher(table, segment)
        watcher.archive = WebArchive(address_of(f"{ward.pacs.rest}/nowhere"), ACCESS)
        with pytest.raises(PacsError, match="404"):
            watcher.forever()


KILLS = [
    *((State, "begin"), (WebArchive, "fetch"), (verb, "segment_series")),
    *((State, "segmented"), (WebArchive, "store"), (State, "stored")),
]
"""After each of these the program may be killed; the fifth is between store and record."""


def killed_after(number, rule, url, folder, model):
    """Watch in a process of its own, which is killed after a step."""
    kind, name = KILLS[number]
    step = getattr(kind, name)

    def last_step(*args, **options):
        step(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(kind, name, last_step)
    watch(
        model,
        url,
        folder,
        rule,
        access=ACCESS,
        pace=Pace(settle=0),
        once=True,
        tell=lambda _: None,
    )


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
@pytest.mark.parametrize("number", range(len(KILLS)), ids=[name for _, name in KILLS])
def test_a_watcher_that_is_killed_stores_neither_twice_nor_never(ward, segment, model, number):
    study = ward.arrives()
    told = (number, ward.rule, ward.pacs.url, ward.folder / "state", model)
    child = multiprocessing.get_context("fork").Process(target=killed_after, args=told)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    before = [found["SOPInstanceUID"] for found in ward.segmentations(study)]
    assert len(before) == (number >= 4)
    ward.now = time.time()
    (entry,) = ward.once(segment)
    assert entry.status == "stored"
    assert entry.tries == (1 if KILLS[number][1] == "stored" else 2)
    assert [found["SOPInstanceUID"] for found in ward.segmentations(study)] == [entry.object]
    assert before in ([], [entry.object])
    assert ward.left() == []


def test_a_series_that_ends_the_program_each_time_is_given_up(ward, segment):
    ward.arrives()

    def end(folder, path):
        raise SystemExit

    for _ in range(2):
        with pytest.raises(SystemExit):
            ward.once(end, tries=2)
    (entry,) = ward.once(end, tries=2)
    assert (entry.status, entry.tries) == ("failed", 2)
    assert "the program ended" in entry.reason


def test_being_told_to_end_is_no_failed_try(ward, segment):
    ward.arrives()

    def end(folder, path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ward.once(end)
    (entry,) = ward.entries
    assert (entry.status, entry.tries) == ("waiting", 0)


def test_objects_may_go_elsewhere_by_dimse(ward, segment):
    study = ward.arrives()
    (entry,) = ward.once(segment, target=archive_at(ward.pacs.node, ACCESS))
    assert entry.status == "stored"
    assert len(ward.segmentations(study)) == 1


class Refusing:
    """An archive whose token has expired."""

    name = "https://pacs"

    def echo(self):
        raise PacsError("https://pacs: does not let us in (HTTP 401).")

    def holds(self, instance):
        self.echo()


def test_being_shut_out_is_no_fault_of_a_series(ward, segment):
    study = ward.arrives()
    for _ in range(4):
        with pytest.raises(PacsError, match="401"):
            ward.once(segment, target=Refusing())
    (entry,) = ward.entries
    assert (entry.status, entry.tries) == ("segmented", 0)
    assert [one.status for one in ward.once(segment)] == ["stored"]
    assert len(ward.segmentations(study)) == 1


def test_two_watchers_keep_out_of_each_others_way(ward, model):
    with locked(ward.folder / "state"), pytest.raises(FileError, match="another process"):
        watch(
            model,
            ward.pacs.url,
            ward.folder / "state",
            ward.rule,
            access=ACCESS,
            pace=Pace(),
            tell=print,
        )


def test_a_folder_is_about_one_form(ward):
    with ward.table():
        pass
    with pytest.raises(ConfigError, match="remembers what was stored as seg, not rtstruct"):
        State(ward.folder / "state", "rtstruct")
    (ward.folder / "state" / "state.sqlite").write_bytes(b"no table" * 99)
    with pytest.raises(FileError, match="cannot be read or written"):
        ward.table()


@pytest.mark.parametrize(
    ("network", "channels", "said"),
    [("lightmedseg", 2, "needs 2 channels"), ("tinyunet", 1, "segments pictures")],
)
def test_a_model_that_fits_no_series_is_refused(ward, tmp_path, network, channels, said):
    save_bundle(small_bundle(network, channels=channels), tmp_path / "other.lamina")
    with pytest.raises(ConfigError, match=said):
        watch(
            tmp_path / "other.lamina",
            ward.pacs.url,
            ward.folder / "state",
            ward.rule,
            access=ACCESS,
            pace=Pace(),
            tell=print,
        )


class TestCommands:
    """The same from the command line, whose output never says who a patient is."""

    def test_options_that_are_not_given_leave_the_rule_of_the_file(
        self, cli, tmp_path, monkeypatch
    ):
        asked = []

        def pull_nothing(url, out, rule, **rest):
            asked.append(rule)
            raise PacsError("Nothing was pulled.")

        monkeypatch.setattr(transfer, "pull", pull_nothing)
        (tmp_path / "rule.yaml").write_text("modality: CT\ndescription: ['*liver*']\ndays: 3\n")
        pull = ("pacs", "pull", "--url", "https://pacs.example/dicom-web", "-o", tmp_path / "out")
        cli(*pull, "--rule", tmp_path / "rule.yaml", "--days", 2)
        assert asked == [Rule(modality=("CT",), description=("*liver*",), days=2)]

    def test_all_of_them(self, ward, cli, model, tmp_path):
        name = ward.rule.description[0]
        ward.arrives()
        ward.arrives(12, only=[*range(5), *range(8, 12)])
        url, state = ("--url", ward.pacs.url), tmp_path / "state"
        (tmp_path / "rule.yaml").write_text(f"modality: CT\ndescription: ['{name}']\n")
        rule = ("--rule", tmp_path / "rule.yaml")
        watching = ("pacs", "watch", "-m", model, *url, *rule, "--state", state, "--once")
        done = [
            cli("pacs", "echo", *url),
            cli("pacs", "echo", "--url", ward.pacs.node),
            cli("pacs", "pull", *url, *rule, "-o", tmp_path / "out"),
            cli("pacs", "push", tmp_path / "out", "--url", ward.pacs.node),
            cli(*watching, "--settle", 0, "--anonymise", "--verbose"),
            cli("pacs", "status", state),
            cli(*watching, "--settle", 0, "--anonymise"),
        ]
        assert [one.exit_code for one in done] == [0, 0, 0, 0, 1, 0, 0]
        assert f"{ward.pacs.node} answers." in done[1].stdout
        assert "21 objects stored" in done[3].stdout
        assert ": stored." in done[4].stderr
        assert "slice" in done[4].stderr
        assert "stored" in done[5].stdout
        assert done[6].stdout == "Nothing was to be done.\n"
        told = json.loads(cli("pacs", "status", state, "--json").stdout)
        assert sorted(one["status"] for one in told["series"]) == ["stored", "waiting"]
        assert told["failures"] == {}
        kept = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
        for secret in PATIENT.values():
            assert not any(secret in one.output for one in done)
            assert secret.encode() not in kept

    @pytest.mark.parametrize(
        ("verb", "said"),
        [
            (["pull", "--url", "dicom://a@b:1", "-o", "out"], "by DICOMweb only"),
            (["echo", "--url", "https://a", "--secret", "s3cret"], "is not the secret"),
            (["push", "nowhere", "--url", "https://a"], "nowhere: does not exist"),
            (
                ["push", ".", "--url", "dicom://a@b:1", "--ca", "rule.yaml"],
                "--ca: dicom://a@b:1 is not encrypted",
            ),
            (
                ["watch", "-m", "m", "--url", "http://a", "--state", "s"]
                + ["--store-user", "me", "--store-secret", "env:S3CRET"],
                "--store-secret: needs --store-url",
            ),
            (["status", "nowhere"], "no folder of lamina pacs watch"),
            (["watch", "-m", "m", "--url", "http://a", "--state", "s", "--every", "0"], "every"),
            (
                ["watch", "-m", "m", "--url", "http://a", "--state", "s", "--rule", "rule.yaml"],
                "body_parts: unknown; did you mean body_part?",
            ),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, cli, tmp_path, monkeypatch, verb, said):
        monkeypatch.chdir(tmp_path)
        Path("rule.yaml").write_text("body_parts: [HEAD]\n")
        done = cli("pacs", *verb)
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr
        assert "s3cret" not in done.stderr


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ({}, "abc"),
        ({"modality": ("ct",)}, "ab"),
        ({"description": ("*THORAX*", "*head*")}, "bc"),
        ({"not_description": ("*thorax*",)}, "ac"),
        ({"body_part": ("abdo*",)}, "a"),
        ({"min_slices": 11}, "bc"),
        ({"min_slices": 5, "max_slices": 15}, "ab"),
    ],
)
def test_rules_mean_what_fits_in_all_that_is_given(rule, meant):
    told = [
        ("a", "CT", "", "ABDOMEN", 10),
        ("b", "CT", "Thorax 1 mm", "", 15),
        ("c", "MR", "t1 Head", "HEAD", 20),
        ("d", "SEG", "Thorax", "", 12),
    ]
    series = [
        Series(uid=u, study="", modality=m, description=d, body_part=b, instances=n)
        for u, m, d, b, n in told
    ]
    found = [one.uid for one in series if Rule(**rule).matches(one, one.instances)]
    assert found == list(meant)


def test_rules_ask_for_days_and_one_modality():
    today = date(2024, 3, 1)
    assert Rule(days=1, modality=("CT",)).filters(today) == {
        "Modality": "CT",
        "StudyDate": "20240301-",
    }
    assert Rule(modality=("ct",)).filters(today) == {"Modality": "CT"}
    assert Rule(days=2, modality=("CT", "MR")).filters(today) == {"StudyDate": "20240229-"}
    with pytest.raises(ConfigError, match="SEG: holds no images"):
        Rule(modality=("seg",))


class Empty:
    """An archive that lists a series and has nothing of it."""

    name = "empty"

    def echo(self):
        pass

    def series(self, filters):
        about = {"study": "1", "modality": "CT", "description": "", "body_part": ""}
        return [Series(uid="1.2", instances=1, **about)]

    def count(self, series):
        return 1

    def fetch(self, study, uid, folder, instances):
        raise PacsError("empty: has nothing of it.")


def test_the_pause_before_a_further_try_grows_to_a_day_and_is_kept(tmp_path):
    now, pauses = [1e9], []
    with closing(State(tmp_path, "seg")) as table:
        watcher = Watcher(
            archive=Empty(),
            target=Empty(),
            segment=None,
            model="",
            folder=tmp_path,
            state=table,
            rule=Rule(),
            pace=Pace(settle=0, tries=12),
            tell=pauses.append,
            clock=lambda: now[0],
        )
        for tries in range(1, 12):
            watcher.once()
            now[0] += 1
            watcher.once()  # too early
            (entry,) = table.entries()
            assert entry.tries == tries
            pauses[-1] = entry.due - now[0] + 1
            now[0] = entry.due
    assert pauses == [60 * 4**n for n in range(6)] + [LONGEST_DELAY_S] * 5


def test_the_table_survives_a_write_that_breaks_off(tmp_path):
    def one_only():
        about = {"study": "", "modality": "CT", "description": "", "body_part": ""}
        yield Series(uid="1.2", instances=3, **about), 3
        raise Stop

    with closing(State(tmp_path, "seg")) as table, pytest.raises(Stop):
        table.see(one_only(), 0)
    with closing(State(tmp_path, "seg")) as table:
        assert table.entries() == []


class One(Empty):
    """An archive that has one series."""

    def fetch(self, study, uid, folder, instances):
        folder.mkdir()
        return 1


class Filling(One):
    """An archive whose series fills the disk, unless there is ``room`` for it.

    Where ``least`` is given, it stands for what was free before, and is none of it afterwards.
    """

    room = False

    def __init__(self, least=None):
        self.least = least

    def fetch(self, study, uid, folder, instances):
        with atomic_path(folder) as part:
            part.mkdir()
            if not self.room:
                if self.least:
                    self.least(1 << 62)
                (part / "1.2.3").symlink_to("/dev/full")
            (part / "1.2.3").write_bytes(b"slice")
        return 1


@pytest.fixture
def least(monkeypatch):
    """Set how many bytes of the disk must be free."""
    return lambda room: monkeypatch.setattr(loop, "_LEAST_FREE_BYTES", room)


@pytest.fixture
def watcher(tmp_path):
    """Make a watcher of an archive that is no real one."""
    with closing(State(tmp_path, "seg")) as table:
        yield lambda archive, **others: Watcher(
            **{
                "archive": archive,
                "target": archive,
                "segment": None,
                "model": "",
                "folder": tmp_path,
                "state": table,
                "rule": Rule(),
                "pace": Pace(settle=0),
                "tell": lambda _: None,
            }
            | others
        )


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")


@FULL
def test_a_disk_that_fills_during_a_copy_is_no_fault_of_the_series(watcher, least):
    def misfit(folder, path):
        raise GeometryError("askew")

    archive, pauses, lines = Filling(least), [], []

    def pause(seconds):
        pauses.append(seconds)
        (entry,) = watching.state.entries()
        if archive.room:
            assert (entry.tries, entry.reason) == (1, "askew")
            raise Stop
        assert (entry.status, entry.tries, entry.reason) == ("waiting", 0, "")
        archive.room = len(pauses) == 12
        least(1)

    watching = watcher(archive, segment=misfit, tell=lines.append, pause=pause)
    with pytest.raises(DiskFullError):
        watching.once()
    least(1)
    with pytest.raises(Stop):
        watching.forever()
    assert pauses == [*[2**n for n in range(9)], *[300] * 3, 30]
    assert sum("no space left on the disk. Next try" in line for line in lines) == 12
    assert not any("answers again" in line for line in lines)


@FULL
def test_a_series_larger_than_the_disk_is_given_up(watcher):
    now, lines = [1e9], []
    watching = watcher(Filling(), tell=lines.append, clock=lambda: now[0])
    for _ in range(3):
        watching.once()
        (entry,) = watching.state.entries()
        now[0] = entry.due
    assert (entry.status, entry.tries) == ("failed", 3)
    assert entry.reason == "no space left on the disk."
    assert lines[-1] == "Series 1: no space left on the disk. It is not tried again."


def test_room_is_needed_only_where_there_is_something_to_do(watcher, least):
    least(1 << 62)
    watcher(Empty(), rule=Rule(modality=("MR",))).once()
    with pytest.raises(DiskFullError, match="less than 1 GB"):
        watcher(Empty()).once()


def test_a_disk_too_full_for_the_table_is_waited_for(watcher):
    class Busy(Empty):
        """An archive with more series than the table has room for."""

        def series(self, filters):
            return [replace(super(Busy, self).series(filters)[0], uid=f"1.{n}") for n in range(999)]

    def pause(seconds):
        if watching.state.entries():
            raise Stop
        limit("PRAGMA max_page_count = 9999")

    lines = []
    watching = watcher(Busy(), tell=lines.append, pause=pause, pace=Pace())
    limit = watching.state.connection.execute
    limit("PRAGMA max_page_count = 1")  # no fewer than there are
    with pytest.raises(DiskFullError, match="state.sqlite: cannot be read or written"):
        watching.once()
    with pytest.raises(Stop):
        watching.forever()
    assert "Next try in 1 s." in lines[1]


class Away(Empty):
    """An archive that never answers."""

    def echo(self):
        raise UnreachableError("away: cannot be reached.")


def test_an_archive_may_be_away_for_weeks(tmp_path):
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 5000:
            raise Stop

    with closing(State(tmp_path, "seg")) as table, pytest.raises(Stop):
        Watcher(
            archive=Away(),
            target=Away(),
            segment=None,
            model="",
            folder=tmp_path,
            state=table,
            rule=Rule(),
            pace=Pace(),
            tell=lambda _: None,
            pause=pause,
        ).forever()
    assert set(pauses[9:]) == {300}


@pytest.mark.parametrize("refusal", [0xA700, 0x0124])
def test_a_node_that_is_full_is_sent_the_object_until_it_has_room(tmp_path, refusal):
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import CTImageStorage, Verification

    write_series(tmp_path / "made", size=(4, 4, 1))
    (made,) = (tmp_path / "made").iterdir()
    now, answers = [1e9], [refusal] * 7
    node = AE()
    node.supported_contexts = []
    for kind in (Verification, CTImageStorage):
        node.add_supported_context(kind)
    handlers = [(evt.EVT_C_STORE, lambda _: answers.pop() if answers else 0)]
    server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    def copied(folder, path):
        shutil.copy(made, path)
        return ()

    waits = []
    try:
        with closing(State(tmp_path, "seg")) as table:
            watcher = Watcher(
                archive=One(),
                target=archive_at(f"dicom://127.0.0.1:{server.server_address[1]}", ACCESS),
                segment=copied,
                model="",
                folder=tmp_path,
                state=table,
                rule=Rule(),
                pace=Pace(settle=0, tries=3),
                tell=lambda _: None,
                clock=lambda: now[0],
            )
            while answers:
                watcher.once()
                (entry,) = table.entries()
                assert entry.status == "segmented"
                assert f"{refusal:04X}H" in entry.reason
                waits.append(entry.due - now[0])
                now[0] = entry.due
            watcher.once()
            (entry,) = table.entries()
            assert (entry.status, entry.reason) == ("stored", "")
    finally:
        server.shutdown()
    assert waits == [60, 240, *[300] * 5]
