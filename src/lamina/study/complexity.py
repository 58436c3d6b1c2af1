"""What the networks of a study cost: counted, never typed."""

from lamina.models import NETWORKS, NetworkConfig, configure
from lamina.study.schema import COUNTED, Row, Study


def network_of(study: Study, row: Row) -> NetworkConfig:
    """Return the network of a row with the channels, classes and axes of the paper.

    Raises:
        UnknownNameError, ConfigError: There is no such network, or it takes no such options.
    """
    counts = {"in_channels": study.in_channels, "num_classes": study.num_classes}
    axes = len(study.size)
    own = NETWORKS.get(row.model)(study.in_channels, study.num_classes).spatial_dims
    dims = {} if own == axes else {"spatial_dims": axes}
    return configure(row.model, **counts, **dims, **row.model_options)


def counted(study: Study, row: Row) -> dict[str, float]:
    """Return ``parameters`` and ``macs`` of a row where the study has columns for them."""
    import torch

    from lamina.models.complexity import complexity

    asked = {column.metric for column in study.columns} & {*COUNTED}
    if not asked:
        return {}
    config = network_of(study, row)
    if "macs" in asked:
        found = complexity(config, study.size)
        return {"parameters": float(found.parameters), "macs": float(found.macs)}
    with torch.device("meta"):
        network = config.build()
    return {"parameters": float(sum(weight.numel() for weight in network.parameters()))}
