"""Operators that several networks share, for images and volumes alike."""
