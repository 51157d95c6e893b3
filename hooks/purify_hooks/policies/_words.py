"""English function words: common, closed classes, and nothing that a text is about."""

_BY_CLASS = """
a an the this that these those each every some any no all both either neither
I me my mine you your he him his she her hers it its we us our they them their
who whom whose which what myself himself herself itself themselves
of in on at by for with from to into onto upon over under about after before between among
through during against within without toward towards across behind beyond along around near since until
am is are was were be been being have has had having do does did
can could will would shall should may might must
and or but nor so yet if then than because although though while when where whether as
not there here
"""

FUNCTION_WORDS = tuple(_BY_CLASS.split())
