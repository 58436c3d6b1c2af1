"""Studies: the papers' tables and curves, as rows that can be trained and figures that are printed.

``tables`` holds one YAML file each; ``schema`` says what stands in it, ``filling`` lays what was
measured beside what was printed.
"""
