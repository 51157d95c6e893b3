"""The test bed's public name; its models and what to ask them are in `purify_hooks.evaluation.testbed`."""

from purify_hooks.evaluation.testbed import (
    HOME as HOME,
)
from purify_hooks.evaluation.testbed import (
    LLM as LLM,
)
from purify_hooks.evaluation.testbed import (
    SLM as SLM,
)
from purify_hooks.evaluation.testbed import (
    SLM_1024 as SLM_1024,
)
from purify_hooks.evaluation.testbed import (
    Attacks as Attacks,
)
from purify_hooks.evaluation.testbed import (
    Backdoor as Backdoor,
)
from purify_hooks.evaluation.testbed import (
    Canary as Canary,
)
from purify_hooks.evaluation.testbed import (
    Passage as Passage,
)
from purify_hooks.evaluation.testbed import (
    attacks as attacks,
)
from purify_hooks.evaluation.testbed import (
    heldout as heldout,
)
