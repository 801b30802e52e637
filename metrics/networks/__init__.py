"""The frozen networks that metrics need, each with its exact preprocessing."""
