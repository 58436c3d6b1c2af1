"""From a scan to its segmentation, with any callable ``(B, C, *S) -> (B, K, *S)``."""
