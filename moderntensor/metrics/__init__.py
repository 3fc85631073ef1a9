"""What a node tells a monitoring system: its metrics in the format of Prometheus.

Needs the extra ``metrics`` (`prometheus-client`); without it importing raises `ConfigError`.
"""

from __future__ import annotations

from ..errors import ConfigError

try:
    from .collector import CONTENT_TYPE, NodeCollector, render, scrape
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "prometheus_client":
        raise
    raise ConfigError(
        "metrics need prometheus-client: pip install 'moderntensor[metrics]'"
    ) from error

__all__ = ["CONTENT_TYPE", "NodeCollector", "render", "scrape"]
