"""Fan out: many independent jobs, here one after the other, or side by side on a Ray cluster."""

import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from lamina.data.workers import run_over
from lamina.errors import ClusterError, ConfigError, LaminaError, ResourceError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOPBACK = "127.0.0.1"
_PATIENCE_S = 10
_RETRIES = 3
"""How often a job is run again after its worker was lost."""
_OBJECT_STORE_BYTES = 80_000_000
"""About the least that Ray takes: jobs hand over paths and figures, not scans."""
_MAX_JOBS = 64
"""Parts that many small items are shared out in: each begins with seconds of loading libraries."""


def run_jobs(
    jobs: Sequence[Callable[[], Result]],
    cluster: str | None = None,
    *,
    cpus: float = 1,
    gpus: float | None = None,
    on_done: Callable[[int, Result | LaminaError], None] = lambda number, outcome: None,
) -> list[Result | LaminaError]:
    """Run every job, whatever becomes of the others, and return their outcomes in order.

    A job whose worker process is killed, by the system for memory for instance, or whose machine is
    lost, is run again: it should go on from what it has left on disk. One that raises is not.

    Args:
        jobs: Functions without arguments, such as ``functools.partial`` makes; picklable when there
            is a cluster, whose machines must see the same files under the same absolute paths.
        cluster: ``None``: one after the other in this process; ``"local:4"``: on four cores of this
            machine, by a Ray that is started for it, listens on loopback only, and ends with it;
            ``"auto"``: on the Ray cluster that this machine belongs to; ``"host:port"``: on that.
        cpus: Cores that a job takes on a cluster.
        gpus: GPUs likewise, or a share of one; ``None``: one where the cluster has any.
        on_done: Called with a job's number and outcome when it is done, in whatever order.

    Raises:
        ConfigError: ``cluster`` is not of that form.
        ClusterError: It cannot be started or joined, or no machine in it has so many cores or GPUs.
        ModuleNotFoundError: Ray is not installed.
    """
    outcomes: dict[int, Result | LaminaError] = {}
    done = _here(jobs) if cluster is None else _on_ray(jobs, cluster, cpus, gpus)
    with closing(done):
        for number, outcome in done:
            outcomes[number] = outcome
            on_done(number, outcome)
    return [outcomes[number] for number in range(len(jobs))]


def spread(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    cluster: str | None = None,
) -> Iterator[tuple[Item, Result | LaminaError]]:
    """Yield every item with its result or error, in order, worked on here or on a cluster.

    Args:
        function: As for :func:`~lamina.data.workers.run_over`; run again for a part of the items
            when a worker was lost, so it should pass over what it has done before.
        items: To work on.
        workers: Processes of this machine where there is no cluster.
        cluster: As for :func:`run_jobs`, which tells the errors too.
    """
    if cluster is None:
        yield from run_over(function, items, workers)
        return
    share = -(-len(items) // _MAX_JOBS)
    parts = [items[first : first + share] for first in range(0, len(items), share)]
    early: dict[int, list[tuple[Item, Result | LaminaError]] | LaminaError] = {}
    jobs = [partial(_one_by_one, function, part) for part in parts]
    with closing(_on_ray(jobs, cluster, cpus=1, gpus=0)) as done:
        for number, part in enumerate(parts):
            while number not in early:
                early.update([next(done)])
            outcome = early.pop(number)
            if isinstance(outcome, LaminaError):
                yield from ((item, outcome) for item in part)
            else:
                yield from outcome


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item]
) -> list[tuple[Item, Result | LaminaError]]:
    return list(run_over(function, items, workers=0))


def attempt(job: Callable[[], Result]) -> Result | LaminaError:
    """Run a job; what it raises becomes its outcome, but for Ctrl-C."""
    try:
        return job()
    except LaminaError as error:
        return error
    except MemoryError:
        return ResourceError("not enough memory for this job.", remedy="Run fewer at a time.")
    except Exception as error:  # of whatever kind: the other jobs are to go on
        log.debug("A job failed.", exc_info=True)
        return LaminaError(f"{type(error).__name__}: {error}")


def _here(
    jobs: Sequence[Callable[[], Result]],
) -> Generator[tuple[int, Result | LaminaError], None, None]:
    for number, job in enumerate(jobs):
        yield number, attempt(job)


def _on_ray(
    jobs: Sequence[Callable[[], Result]],
    cluster: str,
    cpus: float,
    gpus: float | None,
) -> Generator[tuple[int, Result | LaminaError], None, None]:
    with _ray(cluster) as ray:
        gpus = _room(ray.nodes(), cpus, gpus)
        # A process of its own for each job: the memory that a job took is free after it.
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES, max_calls=1)(attempt)
        numbers = {task.remote(job): number for number, job in enumerate(jobs)}
        waiting = list(numbers)
        while waiting:
            with redirect_stdout(sys.stderr):  # where Ray's news of lost workers belong
                (done,), waiting = ray.wait(waiting, num_returns=1)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = _lost(error)
            yield numbers[done], outcome


@contextmanager
def _ray(cluster: str) -> Iterator[Any]:
    """Yield the module, connected; then disconnect, end what was started, and remove its files."""
    local = re.fullmatch(r"local:([1-9]\d*)", cluster)
    if not local and not re.fullmatch(r"auto|[^\s:]+:[1-9]\d*", cluster):
        raise ConfigError(f"cluster = {cluster!r}: must be auto, host:port, or local:4 or so.")
    with (
        TemporaryDirectory(prefix="lamina-", ignore_cleanup_errors=True) as folder,
        _left_as_it_was(),
    ):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
        options = _own_cluster(int(local[1]), folder) if local else {"address": cluster}
        import ray

        if ray.is_initialized():
            raise ClusterError("Ray is in use in this process already.", remedy="Shut it down.")
        if not local and cluster != "auto":
            _knock(cluster)
        with _loopback_only(ray) if local else nullcontext():
            try:
                _connect(ray, cluster, options)
                yield ray
            finally:
                with redirect_stdout(sys.stderr):
                    ray.shutdown()


def _own_cluster(cpus: int, folder: str) -> dict[str, Any]:
    """Return how Ray is started so that nobody else can reach it, and nothing is left of it."""
    os.environ |= {
        # Otherwise Ray takes an outer address in place of the one it is given, and listens on all.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Otherwise Ray leaves a token in the home folder.
        "RAY_AUTH_TOKEN": _token(),
    }
    os.environ.pop("RAY_AUTH_MODE", None)  # asks for the token by default
    return {
        "address": "local",
        "num_cpus": cpus,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_node_ip_address": _LOOPBACK,
        "_temp_dir": folder,
        "_system_config": {"task_oom_retries": _RETRIES},
    }


@contextmanager
def _loopback_only(ray: Any) -> Iterator[None]:
    """Have Ray keep the address that it is given, even if it was imported before it was told."""
    constants = ray._private.ray_constants
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        if ray.util.get_node_ip_address() != _LOOPBACK:
            raise ClusterError(
                f"Ray {ray.__version__} would listen to other machines.",
                remedy="Install the release that constraints.txt names.",
            )
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@cache
def _token() -> str:
    """Return the secret that only this process and its workers know; Ray takes but one."""
    return secrets.token_hex(32)


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """Put back environment variables, which Ray is told by and changes."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _knock(address: str) -> None:
    """See whether anybody listens there: Ray would try for many minutes."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"cluster {address!r}: nobody answers there: {error}.") from error


def _connect(ray: Any, cluster: str, options: dict[str, Any]) -> None:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own use of Python
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a slow start of Ray's is just that
        raise ClusterError(
            f"cluster {cluster!r}: cannot be reached: {' '.join(str(error).split())}",
            remedy="Start one with ray start --head, or give local:4 or so.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may listen
            signal.signal(signal.SIGTERM, on_sigterm)


def _room(nodes: Sequence[dict[str, Any]], cpus: float, gpus: float | None) -> float:
    """Return the GPUs that a job gets, sure that some machine has as many: Ray would wait for ever.

    Raises:
        ClusterError: None has.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    if gpus is None:
        gpus = float(any(machine.get("GPU") for machine in machines))
    if not any(m.get("CPU", 0) >= cpus and m.get("GPU", 0) >= gpus for m in machines):
        had = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in machines)
        raise ClusterError(
            f"No machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for a job: {had}.",
            remedy="Ask for less, or for a larger cluster.",
        )
    return gpus


def _lost(error: Exception) -> LaminaError:
    """Say what became of a job that has no outcome."""
    *_, last = ["", *str(error).strip().splitlines()]
    return ResourceError(
        f"its worker was lost {_RETRIES + 1} times, or could not run it: {last}",
        remedy="If it was for lack of memory, run fewer at a time.",
    )
