"""The emotion-anchor autoregressive transformer."""
