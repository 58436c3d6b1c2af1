"""A real PACS for tests: Orthanc with its plugin for DICOMweb, where nobody else can reach it."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_NEW_NETWORK = 0x40000000
_LONGEST_START_S = 30


@contextmanager
def alone():
    """Give this thread, and the programs it starts, a network of their own with ``lo`` only.

    Orthanc listens on all addresses, whatever its settings say.
    """
    if not (Path(PROGRAM).is_file() and PLUGIN.is_file() and shutil.which("ip")):
        pytest.skip("Orthanc, its DICOMweb plugin or ip is not installed (orthanc-dicomweb)")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK) != 0:
        os.close(before)
        pytest.skip(f"no network of its own may be made: {os.strerror(ctypes.get_errno())}")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        if ctypes.CDLL(None, use_errno=True).setns(before, _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "the network before cannot be entered")
        os.close(before)


class Orthanc:
    """A server that can be killed and started again on what it has stored.

    With a certificate and its key it speaks DIMSE by TLS alone. HTTPS is for a proxy before it, as
    in most hospitals: that of Debian's Orthanc 1.10 crashes.
    """

    def __init__(self, folder, http=8042, dicom=4242, certified=None, **settings):
        self.folder = folder
        self.url = f"http://127.0.0.1:{http}/dicom-web"
        self.node = f"dicom{'s' if certified else ''}://ORTHANC@127.0.0.1:{dicom}"
        self.rest = f"http://127.0.0.1:{http}"
        self.process = None
        config = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": http,
            "DicomPort": dicom,
            "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        if certified:
            certificate, key = map(str, certified)
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": certificate,
                "DicomTlsPrivateKey": key,
                "DicomTlsTrustedCertificates": certificate,
                "DicomTlsRemoteCertificateRequired": False,
            }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(json.dumps(config | settings))

    def start(self):
        with (self.folder / "log").open("ab") as log:
            command = [PROGRAM, str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        latest = time.monotonic() + _LONGEST_START_S
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < latest, "Orthanc does not start"
            time.sleep(0.02)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, path):
        """Ask Orthanc's own interface, which none of the code that is tested uses."""
        with urllib.request.urlopen(f"{self.rest}{path}", timeout=10) as answer:
            return json.load(answer)

    def holdings(self, study, modality):
        """Return the objects of a study that are of a modality, as their main tags."""
        return [
            instance["MainDicomTags"]
            for series in self.ask("/series?expand")
            if series["MainDicomTags"]["Modality"] == modality
            and self.ask(f"/series/{series['ID']}/study")["MainDicomTags"]["StudyInstanceUID"]
            == study
            for instance in self.ask(f"/series/{series['ID']}/instances")
        ]

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self.rest}/system", timeout=10):
                return True
        except urllib.error.HTTPError:  # it wants a password
            return True
        except OSError:
            return False
