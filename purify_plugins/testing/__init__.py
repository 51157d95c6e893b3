"""Toys and contracts for plugin authors: small sources, and suites to subclass.

>>> class TestHalf(PolicyConformance):
...     def policy(self):
...         return Half()
"""

from purify_plugins.testing.policies import PolicyConformance as PolicyConformance
from purify_plugins.testing.policies import no_context as no_context
from purify_plugins.testing.policies import random_rows as random_rows
from purify_plugins.testing.sources import SourceConformance as SourceConformance
from purify_plugins.testing.stages import CheckConformance as CheckConformance
from purify_plugins.testing.stages import StageConformance as StageConformance
from purify_plugins.testing.toys import ScriptedSession as ScriptedSession
from purify_plugins.testing.toys import ScriptedSource as ScriptedSource
from purify_plugins.testing.toys import ToySession as ToySession
from purify_plugins.testing.toys import ToySource as ToySource
from purify_plugins.testing.toys import byte_vocabulary as byte_vocabulary
from purify_plugins.testing.toys import letters as letters
