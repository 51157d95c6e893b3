"""Request stages: programs around a decode. See `Stage`, `Request`, `Draft` and `Check`."""

from purify_plugins.stages.about import about
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.options import RequestOptions
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft, Stage
from purify_plugins.stages.vault import Vault
from purify_plugins.stages.windows import Windows

__all__ = ["Blocked", "Check", "Draft", "Request", "RequestOptions", "Stage", "Vault", "Windows", "about"]
