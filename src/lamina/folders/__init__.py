"""Folders: what a verb leaves on disk for the next, and how that is read back."""
