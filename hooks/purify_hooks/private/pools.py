"""What surrogates are made of: words that tokenizers write in few tokens, and ranges kept for examples."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIVEN = _words(
    """
    Eva Nora Clara Julia Emma Laura Anna Diana Helen Irene Karen Linda Marta Monica Nina Olga Paula
    Rita Sara Tina Vera Alice Betty Carol Donna Ellen Fiona Gloria Hannah Isabel Janet Kate Lucy Maria
    Nancy Rachel Sandra Teresa Ursula Wanda Adam Boris Carl David Edgar Felix George Hugo Ivan Jacob
    Karl Leo Martin Neil Oscar Peter Ralph Simon Thomas Victor Walter Albert Brian Colin Dennis Eric
    Fred Gordon Henry Ian James Kevin Louis Marcus Norman Oliver Paul Robert Stefan Timothy Vincent
    William Andrew Bruno Charles Daniel Edward Francis Gilbert Harold Julian Kenneth Leonard Michael
    Nathan Philip Richard Samuel Tobias
    """
)
FAMILY = _words(
    """
    Keller Morgan Hansen Meyer Novak Jensen Larsen Olsen Nielsen Petersen Fischer Weber Schmidt Wagner
    Becker Hoffman Schultz Koch Richter Klein Wolf Neumann Schwarz Zimmer Braun Hartman Lange Krause
    Lehman Maier Kaiser Fuchs Vogel Winkler Lorenz Brandt Jansen Bakker Visser Smit Mulder Bos Peters
    Hendriks Dekker Rossi Russo Ferrari Romano Colombo Ricci Marino Greco Bruno Gallo Conti Costa Silva
    Santos Pereira Oliveira Garcia Lopez Gomez Diaz Torres Ramirez Flores Rivera Morales Ortiz Castillo
    Mendoza Vargas Ramos Navarro Johnson Williams Davis Wilson Anderson Thompson Robinson Harris Lewis
    Nelson Mitchell Roberts Campbell Phillips Evans Edwards Collins Stewart Morris Murphy Rogers Cooper
    Peterson Watson Brooks Kelly Sanders Bennett Hughes Sullivan Jenkins Perry Patterson Simmons Foster
    Bryant Griffin Hayes Graham Wallace Jordan
    """
)
WORDS = _words(
    """
    river maple cedar silver north south garden harbor meadow summit valley forest island canyon desert
    prairie ocean coral amber copper indigo violet scarlet crimson golden emerald sapphire crystal
    marble granite pebble thunder breeze winter summer autumn spring morning evening sunset sunrise
    lantern compass anchor beacon bridge castle tower window mirror basket bottle button candle carpet
    feather hammer jacket kettle ladder magnet needle orange paper pencil pepper pillow planet pocket
    potato rocket saddle salmon shadow signal spider sponge stable statue ticket timber tunnel turtle
    velvet wagon walnut willow yellow zebra falcon badger beaver camel cobra dolphin eagle ferret gecko
    heron jaguar koala lemur lobster otter panda parrot pelican penguin pigeon rabbit raven robin seal
    sparrow swan tiger trout turkey walrus weasel whale
    """
)
KEPT = frozenset(
    _words(
        """
    mr mrs ms miss mx dr prof sir herr frau madame monsieur jr sr ii iii van von der den de la le da di
    dos du del el al bin ibn of the and und et y zu zur gmbh ag kg ug ltd llc llp inc corp co plc sa se
    bv nv oy ab as spa srl university bank hospital project street road avenue
    """
    )
)
"""Words of a name that say nothing of whose it is: titles, particles, forms of companies."""
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
AREAS = (
    *(
        "202",
        "212",
        "213",
        "214",
        "215",
        "303",
        "305",
        "312",
        "313",
        "314",
        "404",
        "408",
        "410",
        "412",
        "415",
    ),
    *(
        "502",
        "503",
        "504",
        "505",
        "512",
        "513",
        "602",
        "605",
        "608",
        "612",
        "614",
        "615",
        "617",
        "619",
        "702",
    ),
    *(
        "704",
        "713",
        "714",
        "716",
        "801",
        "802",
        "804",
        "808",
        "813",
        "816",
        "901",
        "904",
        "916",
        "919",
        "972",
    ),
)
"""Area codes of North America, where the numbers 555-0100 to 555-0199 are kept for fiction."""
TEST_CARDS = (
    *(("34", "378282"), ("37", "378282"), ("30", "305693"), ("36", "361111"), ("38", "385200")),
    *(("5", "555555"), ("2", "222300"), ("6", "601111"), ("35", "353011"), ("4", "424242")),
)
"""The first digits of cards, and those of the same network's test cards."""
PREFIXES = (
    *("sk-proj-", "sk-ant-api03-", "sk-ant-", "sk-or-v1-", "sk_live_", "sk_test_", "pk_live_", "pk_test_"),
    *("rk_live_", "whsec_", "sk-", "github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "AKIA"),
    *("ASIA", "AIza", "ya29.", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-", "hf_", "npm_", "pypi-"),
    *("dop_v1_", "SG.", "eyJ", "0x", "bc1q", "bc1p"),
)
"""How keys and tokens begin: what says of which service they are, and nothing of whose."""
