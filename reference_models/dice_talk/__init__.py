"""DICE-Talk (Ours-V, Ours-P)."""
