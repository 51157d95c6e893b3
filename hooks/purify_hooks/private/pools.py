"""What surrogates are made of: words that small models copy, and ranges kept for examples."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Rare names: small models copy these from a prompt; where a common one stands they go on by habit.
GIVEN = _words(
    """
    Cressida Farzana Gareth Heidrun Kwabena Odette Priyanka Rashid Sunniva Tamsin Ulrika Viggo Wanjiru
    Xenia Yusuf Zelda Bronagh Casimir Dagny Eluned Gwendolyn Ignatius Jarmila Leocadia Merrick Niamh
    Osbert Perpetua Quentin Roswitha Siobhan Thaddeus Ulysses Vesna Wilhelmina Ysolde Anselm Blodwen
    Caradoc Delphine Eberhard Fionnuala Ghislaine Hildegard Iolanthe Joscelin Kazimierz Lubomir
    Mireille Nadezhda Oluwaseun Pelagia Rhiannon Svetlana Tancred Urszula Valdemar Wenceslas Zdenka
    Zephyrine Aoife Benedikta Cosmina Dragana Emeka Fabrizio Gudrun Hamza Ivana Jadwiga Katarzyna
    Lorcan Malgorzata Nikolaus Ottilie Petronella Ragnhild Sigrid Theodora Umberto Veronika Wolfgang
    Yevgenia Zbigniew
    """
)
FAMILY = _words(
    """
    Lindqvist Okonkwo Haddadin Bystrom Castellane Duquesne Engstrom Fjeldstad Holmquist Iyengar
    Jarlsberg Kumaran Lowenthal Mbatha Nakashima Oduber Pemberton Quintrell Rasmussen Szabolcs Thorvald
    Umarov Vandermeer Wojcik Yarborough Zielinski Abernathy Blavatsky Cholmondeley Dragomir Ellingham
    Gallowglass Harrington Ingersoll Kowalczyk Lazarevic Montague Nwosu Ostrander Przybylski Abramczyk
    Bjornstad Chandrasekar Dombrowski Eriksson Featherstone Gudmundsson Hathersage Ivanovic Jablonski
    Katsaros Lachowicz Mendelsohn Novotny Okwuosa Papadakis Quarshie Rutkowski Sokolov Tchaikovsky
    Ulvestad Venkataraman Wielgosz Xenakis Yamaguchi Zabriskie Achterberg Boonstra Czerny Dvorak
    Eisenhart Fredriksson Gustavsson Hrubesch Ibekwe Jorgensen Kaczmarek Ljungberg Mikkelsen Nystrom
    Osterhagen Petrosyan Rosenqvist Stankovic Teodorescu Uchenna Vasilescu Westerlund Yilmaz Zimmermann
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
