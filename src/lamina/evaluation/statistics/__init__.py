"""Statistics: whether methods that were scored on the same patients differ, and how sure that is.

Arrays are ``(methods, patients)`` or ``(seeds, patients)``: patients are what is drawn at random,
so several scans of one are averaged before anything here sees them.
"""

SEED = 0
"""Decides every resampling, so that the same scores always give the same figures."""

LEVEL = 0.95
"""Confidence of intervals; tests are made at ``1 - LEVEL``."""

ALPHA = round(1 - LEVEL, 10)

DIGITS = 10
"""Values that agree so far are equal: what is left is rounding, and must not break ties."""
