"""Study: fill a paper's table with what is measured here, beside what is printed.

``plan`` says what is trained, ``unseen`` which other scans are scored, ``runs`` trains and scores
one training, ``table`` writes what was found, and ``conduct`` puts them together.
"""

from lamina.workflows.study.conduct import RECORD, Studied, study

__all__ = ["RECORD", "Studied", "study"]
