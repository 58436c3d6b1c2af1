"""Steps: what the verbs are made of. None of them knows a verb."""
