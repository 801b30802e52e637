"""EAT-Face."""
