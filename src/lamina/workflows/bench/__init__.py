"""Bench: what networks and whole predictions cost on this machine, all by one protocol.

Every row is measured in a process of its own, so that peak memory is its alone and a failure is
its alone too. The processes of one network take turns: each runs the network once, then the next
does, and so on round by round, together with one that measures the machine. Ratios are those of
the same round.
"""

from lamina.workflows.bench.forms import FORMS
from lamina.workflows.bench.measure import BenchSettings, bench
from lamina.workflows.bench.record import read_benchmarks
from lamina.workflows.bench.subjects import SCANS, SUBJECTS

__all__ = ["FORMS", "SCANS", "SUBJECTS", "BenchSettings", "bench", "read_benchmarks"]
