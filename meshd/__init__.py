"""meshd: one network out of many clusters, and no cluster's trouble becomes another's."""

__version__ = "0.1.0"
