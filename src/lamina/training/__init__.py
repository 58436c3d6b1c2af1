"""Training: Lightning's Trainer underneath, every run repeatable and resumable at any step."""
