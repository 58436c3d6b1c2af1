"""From labelled scans to training patches: cohorts, fingerprint, plan, prepared cases, sampling."""
