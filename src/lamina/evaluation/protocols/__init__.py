"""How papers measured, quirks included, one file each: to reproduce their tables, never to compare.

A protocol brings metrics of its own, whose names start with the protocol's, so that no number of
theirs is taken for one of ours. What their empty masks yield is what the papers' programs yield,
even where that rewards a missed structure.
"""

from dataclasses import dataclass

from lamina.errors import ConfigError
from lamina.evaluation.metrics import METRICS, Metric
from lamina.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What one paper reports, as its program computes it."""

    name: str
    paper: str
    """Whose tables are measured so."""
    quirks: str
    """How the numbers differ from what their names promise, in a sentence or two."""
    metrics: tuple[Metric, ...]


PROTOCOLS: Registry[Protocol] = Registry("protocol", __name__)


def find_metric(name: str, protocol: str | None = None) -> Metric:
    """Return the metric of that name, or the one that a protocol has instead.

    Raises:
        UnknownNameError: Neither a metric nor the protocol is called so.
        ConfigError: The protocol has no such metric.
    """
    if protocol is None:
        return METRICS.get(name)
    own = {metric.name: metric for metric in PROTOCOLS.get(protocol).metrics}
    if name not in own:
        raise ConfigError(
            f"metrics = {name!r}: the protocol {protocol!r} does not measure it.",
            remedy=f"It measures {', '.join(own)}.",
        )
    return own[name]
