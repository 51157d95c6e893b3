"""Code that was renamed, reformatted or commented anew is found; its lexer does not depend on the cutting."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from purify_hooks.protected.check import CopyCheck
from purify_hooks.protected.copycheck import Copycheck
from purify_hooks.protected.index import PrintIndex
from purify_hooks.protected.lexing import BARE, CODE, FILE, Dialect, Lexer
from purify_plugins import ConfigError
from purify_plugins.testing import CheckConformance
from purify_plugins.testing.stages import verdict
from tests.protected.test_check import blocked
from tests.protected.works import TIDE, index_of

WORK = '''
def leading(one, other):
    """How many values two sequences begin with in common."""
    short = min(len(one), len(other))
    if one[:short] == other[:short]:
        return short  # the whole of one
    for at in range(short):
        if one[at] != other[at]:
            return at
    raise AssertionError("they are one")

class Ledger:
    def __init__(self, path, most=100):
        self.path = path
        self.rows = {}
        self.most = most

    def charge(self, user, amount):
        with open(self.path, "a") as file:
            file.write(f"{user},{amount}\\n")
        self.rows[user] = self.rows.get(user, 0) + amount
        return self.rows[user] <= self.most
'''
OTHER = """
function area(shape) {
  switch (shape.kind) {
    case 'circle': return Math.PI * shape.radius ** 2;
    case 'square': return shape.side * shape.side;
    default: throw new Error(`no ${shape.kind}`);
  }
}
const total = shapes.map(area).filter(each => each > 0).reduce((a, b) => a + b, 0);
console.log(total.toFixed(2)); // metres
for (let at = 0; at < shapes.length; at++) { draw(shapes[at], at * 10, "black"); }
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PrintIndex:
    return index_of(tmp_path_factory.mktemp("code"), [WORK], code=True)


def renamed(source: str) -> str:
    """Every name but Python's own words is another."""
    own = {"def", "class", "return", "for", "in", "if", "with", "as", "raise", "self", "open", "range"}
    names: dict[str, str] = {}

    def other(found: re.Match[str]) -> str:
        return found[0] if found[0] in own else names.setdefault(found[0], f"x{len(names)}")

    return re.sub(r"(?<![\"'\w{])[^\W\d]\w*(?![\"'}])", other, source)


@pytest.mark.parametrize(
    "change",
    [
        str,
        renamed,
        lambda each: ast.unparse(ast.parse(each)),
        lambda each: each.replace("\n", "  # another comment\n"),
        lambda each: each.replace("    ", "\t").replace('"', "'"),
        lambda each: each.replace(
            "(self, user, amount)", "(\n        self,\n        user,\n        amount,\n    )"
        ),
        lambda each: f"It's short:\n\n```python\n{each}\n```\n\nDon't forget to test it.",
        lambda each: "\n".join(f"{at:3}  {line}" for at, line in enumerate(each.splitlines())),
        lambda each: each.replace("\n", "\n+"),
        lambda each: each.replace("\n", "\n# "),
        lambda each: f"/* {each} */",
        lambda each: f"'''{each}'''",
        lambda each: json.dumps({"path": "a.py", "content": each}),
    ],
    ids=[
        "as it is",
        "renamed",
        "reformatted",
        "comments",
        "tabs and quotes",
        "a call over lines",
        "in a fenced block",
        "with line numbers",
        "as a difference",
        "as comments",
        "in one comment",
        "in a docstring",
        "in JSON",
    ],
)
def test_disguised_code_is_found(index: PrintIndex, change: object) -> None:
    assert callable(change)
    assert blocked(CopyCheck(index), change(WORK)) is not None


def test_other_code_and_prose_are_not(index: PrintIndex) -> None:
    for text in (OTHER, TIDE, WORK[:160]):
        assert blocked(CopyCheck(index), text) is None


@pytest.mark.parametrize(
    "text",
    [
        WORK,
        OTHER,
        'a = "open\nb = \'x\' /* c */ + """d"""',
        "it's `one\ntwo` <!-- no --> -- sql\n#[derive] #x\n",
        '"""never closed (a, b,)',
        "/* never closed; x",
        "```py\n  12 a\n+ b\n>>> c\n```\nx ` y",
        '{"a": "def f():\\n  return d[\\"a\\"] # \\u0020"}',
    ],
)
@pytest.mark.parametrize("dialect", [CODE, FILE, BARE], ids=["code", "file", "bare"])
def test_tokens_do_not_depend_on_how_the_text_is_cut(text: str, dialect: Dialect) -> None:
    whole = Lexer(dialect).feed(text, last=True)
    for size in (1, 2, 3, 7):
        lexer = Lexer(dialect)
        cut = [token for end in range(0, len(text), size) for token in lexer.feed(text[:end], last=False)]
        assert [*cut, *lexer.feed(text, last=True)] == whole


def test_a_file_with_a_long_docstring_is_read_as_code_behind_it(tmp_path: Path) -> None:
    index = index_of(tmp_path, [f'"""{"So it goes. " * 900}"""\n{WORK}'], code=True)
    assert blocked(CopyCheck(index), WORK) is not None


def test_little_of_what_is_in_a_comment_that_is_open_is_released(index: PrintIndex) -> None:
    """A reader of a stream would have read it before the comment is closed."""
    check = CopyCheck(index).fresh()
    text = f"/* {WORK}"
    for end in range(0, len(text), 5):
        found = verdict(check, text[:end], last=False)
        if found.blocked:
            break
    assert found.blocked
    assert end < 400


def test_what_does_not_count_in_code() -> None:
    one = "f(a, b);  // add\nx = 'one'"
    other = '/* add */ f(\n  a,\n  b,\n)\nx = "another"'
    assert [each.symbol for each in Lexer().feed(one, True)] == [
        each.symbol for each in Lexer().feed(other, True)
    ]


def test_a_stage_for_code_has_a_check_and_no_mask(tmp_path: Path) -> None:
    index_of(tmp_path, [WORK], code=True)
    name = str(tmp_path / "index.prints")
    with pytest.raises(ConfigError, match="code = true"):
        Copycheck(name)
    stage = Copycheck(name, code=True)
    assert stage.masks("x") == ()
    assert 0 < stage.holds_back < 1000


@pytest.mark.slow
class TestCodeCheck(CheckConformance):
    parts = (
        *re.findall(r"\S+\s*", WORK)[:25],
        "/*",
        "*/",
        '"',
        "'",
        "\n",
        '"""',
        WORK[60:160],
        WORK[160:330],
        WORK[330:],
        "# x",
    )
    most = 9

    @pytest.fixture(autouse=True)
    def made(self, index: PrintIndex) -> None:
        self.index = index

    def check(self) -> CopyCheck:
        return CopyCheck(self.index, share=0.1, words=20)
