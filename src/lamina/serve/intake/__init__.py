"""Uploads: received piece by piece, unpacked with suspicion, and found out what they are."""

from lamina.serve.intake.archives import unpack
from lamina.serve.intake.scans import Scan, find_scan
from lamina.serve.intake.uploads import Limits, Upload, receive

__all__ = ["Limits", "Scan", "Upload", "find_scan", "receive", "unpack"]
