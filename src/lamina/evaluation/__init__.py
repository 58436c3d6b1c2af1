"""How well a segmentation agrees with its reference: metrics, scores, the printed table."""
