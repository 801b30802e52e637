"""Pure functions over arrays, and the frozen networks they need. Imports nothing of the other packages."""

from metrics.base import Metric, MetricError, extractor, extractor_names, metric, names
from metrics.library import get

__all__ = ["Metric", "MetricError", "extractor", "extractor_names", "get", "metric", "names"]
