"""Jobs: a queue on the disk, the processes that work on it, and what keeps them alive."""

from lamina.serve.jobs.pool import Pool
from lamina.serve.jobs.store import Store
from lamina.serve.jobs.work import Cancelled, Job, Tell, Work

__all__ = ["Cancelled", "Job", "Pool", "Store", "Tell", "Work"]
