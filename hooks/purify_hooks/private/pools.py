"""What surrogates are made of: words that small models copy, and ranges kept for examples."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Names of two tokens in SmolLM2's vocabulary. A name of one token is one that texts have often, and small
# models go on with it by habit; of one of three and more they seldom copy the end. Words of English are out.
GIVEN = _words(
    """
    Abner Agatha Albin Aldous Alfonso Alvin Amara Ambrose Amina Anders Ansel Antonia Armand Arvid
    Aurelia Axel Azra Barnaby Beatrix Belinda Bertram Blaise Brita Bronagh Bruna Calista Camille
    Carlotta Casimir Casper Cassius Celeste Celia Chidi Clarissa Clovis Cordelia Cosmo Cyprian Dagmar
    Damian Dario Desmond Dieter Dinah Dorian Edda Elara Eldon Elke Elmer Eluned Emeric Emil Enid
    Ernestine Estelle Eugenia Evander Ewan Fabian Fabiola Farid Fatima Felicia Fergus Fidel Flavia
    Florian Franka Freya Frida Gaspar Gaston Gemma Georgina Gerda Gerhard Gilda Giles Godfrey Greta
    Gunnar Hamish Hamza Harald Hector Hedda Hedwig Heloise Henrik Hermione Hilda Horatio Ignacio
    Ignatius Ilona Imogen Ines Inga Ingmar Ingrid Irina Ivana Ivar Jasper Jonas Josefina Jovan Justus
    Kaspar Klara Klaus Konrad Lavinia Leander Leif Leonora Liesel Linus Lionel Livia Lorcan Lorenz
    Lucian Lucinda Magnus Malachi Manfred Marcel Marcella Margot Marius Mathias Matilda Merrick Mina
    Mirko Morag Moritz Nadia Nadine Natasha Nestor Nikita Nils Norbert Nuria Octavia Olaf Olga Osbert
    Otis Ottavia Ovid Paloma Pelagia Percival Pilar Ramona Raoul Rashid Reinhard Renata Romilda Rupert
    Sabina Salome Saskia Selma Sergei Severin Sibyl Sigmund Sigrid Silas Silvia Soren Stellan Sven
    Sylvester Tamara Thea Theodora Thora Tibor Tilda Tobias Torsten Ulla Ulrich Ulrika Ursula Valentina
    Valerian Vasily Venetia Vesna Viggo Viktor Vilma Vito Waldo Wilfred Willa Xaver Xenia Yara Yuri Zara
    Zelda Zenobia Zora
    """
)
FAMILY = _words(
    """
    Abelard Aldridge Alstrom Ansgar Bachmann Backstrom Barlow Baumann Beckford Bellweather Bergstrom
    Bertrand Blackwood Bohm Bolander Borgstrom Brandt Brennan Brightman Brockway Bruhn Bystrom Cadwell
    Cardew Carlsson Carmody Castellan Chadwick Chesterton Cobham Colbeck Costello Cranmer Crawley
    Dahlberg Dahlgren Danvers Denholm Dietrich Drummond Dunbar Dunmore Durand Eckhart Edelman Egerton
    Ekberg Ellingham Ellsworth Elmore Engstrom Erdmann Falkner Farrow Feldman Fenwick Ferraro Fitzroy
    Forsberg Garrick Gerhardt Goldstein Gorman Gruber Gustavsson Haber Hagen Halloran Hallstrom Hanley
    Harrington Hartmann Heller Hendricks Herzog Hewitt Hobart Holbrook Hollister Holloway Huber Hutchins
    Ingram Ivanovic Ivers Jansen Jenner Jessop Karlsson Kendrick Kirkwood Kohler Kramer Kruger Kumaran
    Landau Langford Larsson Laurent Leland Lindberg Lindgren Lindholm Lockhart Lombardi Lowenthal Ludlow
    Lundberg Lundgren Malmberg Marchetti Markham Mayhew Merriman Millard Monahan Montague Moreau Munro
    Nagy Navarro Nilsson Nordstrom Norling Novak Nyberg Nystrom Oberlin Olsson Orlov Osborne Overton
    Pascoe Paulsen Pavlov Pelham Pendleton Petersson Pickford Quintrell Radcliffe Ramsey Reinhardt
    Richter Ritter Rockwell Romero Rosenberg Rossetti Rothwell Rudd Sandberg Sanderson Seaton Sundberg
    Swinton Tennant Tolliver Tyrell Vaughn Vickers Vogel Voss Wallin Weatherby Wendell Westbrook
    Whitaker Whitlock Wickham Winslow Winthrop Woodruff Xenakis Yardley Yates Zeller Zimmermann
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
