"""A chat template is a stranger's program: it ends soon, makes little, and else renders as ever."""

# ruff: noqa: E501  # templates are as long as those that models bring

from __future__ import annotations

import resource
import time
from typing import Any

import pytest

from purify_plugins.tokenizers.chat_template import render
from purify_plugins.tokenizers.template_cost import SIZE

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "I should look.",
        "tool_calls": [{"id": "call_0001", "function": {"name": "look", "arguments": {"at": "Æ'"}}}],
    },
    {"role": "tool", "content": "rain", "tool_call_id": "call_0001"},
    {"role": "assistant", "content": "<think>hm</think>It rains."},
    {"role": "user", "content": "Thanks"},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
    },
    {
        "type": "function",
        "function": {"name": "leap", "description": "Leap.", "parameters": {"a": [1, 2.5, None]}},
    },
]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
HONEST: dict[str, str] = {
    "turns": """{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>
{{ m['content'] if m.content is string else m.content | map(attribute='text') | join(' ') if m.content else '' }}
{% if not loop.last %}--{% endif %}{% if loop.first %}({{ loop.length }}){% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}""",
    "namespaces and slices": """{%- set ns = namespace(last=-1, seen=[]) -%}
{%- for m in messages[1:] -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}
{%- set ns.seen = ns.seen + [m.role ~ loop.index] -%}{%- endif -%}{%- endfor -%}
{{ ns.last }} {{ ns.seen | join(',') }} {{ messages[::-1][0].content[:3] }} {{ messages | length % 4 }}""",
    "macros": """{%- macro shown(content, prefix='>') -%}{%- if content is string -%}{{ prefix ~ content }}
{%- elif content is iterable and content is not mapping -%}{%- for c in content -%}{{ prefix + c.text | trim }}
{%- endfor -%}{%- endif -%}{%- endmacro -%}
{%- for m in messages -%}{{ shown(m.content) }}|{{ shown(m.content, prefix='') }}{%- endfor -%}
{%- macro twice() -%}{{ caller() }}{{ caller() }}{%- endmacro -%}{% call twice() %}x{% endcall %}""",
    "tools": """{% if tools %}{% for t in tools %}{{ t | tojson(indent=2) }}{{ t.function.name | upper }}
{% for key, value in t.function.items() if key != 'name' %}{{ key }}={{ value | tojson }}{% if not loop.last %}, {% endif %}
{%- endfor %}{% endfor %}{% endif %}
{%- for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson(ensure_ascii=False) }}
{{- c.id[-9:] }}{% set out = c.function | tojson %}{{ out[:-1] }}{% endfor %}{% endfor %}""",
    "thoughts": """{%- for m in messages -%}{%- if m.reasoning_content is defined -%}[{{ m.reasoning_content }}]
{%- endif -%}{%- if m.content is string and '</think>' in m.content -%}
{{ m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}{{ m.content.split('</think>')[-1] }}
{%- endif -%}{%- endfor -%}""",
    "selected": """{%- set users = messages | selectattr('role', 'equalto', 'user') | list -%}
{%- for m in messages -%}{%- if m == users[-1] -%}LAST{%- break -%}{%- endif -%}{%- if m.role not in ['user', 'tool'] -%}
{%- continue -%}{%- endif -%}{{ loop.index }}{%- endfor -%}{{ users | map(attribute='role') | unique | join }}
{{- messages | rejectattr('tool_calls', 'defined') | list | length }}{{ {'a': 1, 'b': [2, 3]}['b'][0] + 1 }}""",
    "kept aside": """{% set kept %}{% for m in messages %}{{ m.role[0] }}{% endfor %}{% endset %}{{ kept | title | replace('U', 'V') }}
{% filter upper %}abc{{ kept }}{% endfilter %}{% generation %}said{% endgeneration %}{% raw %}{{ x }}{% endraw %}
{{- '%s-%03d' % ('a', 7) }}{{ '{} {:>4}'.format(1, 'b') }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ [1, 2] * 2 }}{{ (1, 'a') }}""",
    "absent": """{{ missing | default('none') }}{{ messages[0].get('name', 'nobody') }}{{ documents is none }}{{ tools is defined }}
{{- 'x' if undefined_thing is defined else 'y' }}{{ messages[0].items() | list }}{{ dict(a=1) }}{{ range(3) | list }}""",
}


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["bare", "tools"])
@pytest.mark.parametrize("name", HONEST)
def test_a_template_is_rendered_as_transformers_does(name: str, tools: Any) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    said = [{key: value for key, value in message.items() if value is not None} for message in CHAT]
    theirs = render_jinja_template(
        conversations=[said], tools=tools, chat_template=HONEST[name], add_generation_prompt=True, **NAMES
    )
    assert render(HONEST[name], CHAT, tools, NAMES) == theirs[0][0]


def test_a_long_conversation_is_no_bomb() -> None:
    long = CHAT * 100 + [{"role": "user", "content": "word " * 20_000}]
    for template in HONEST.values():
        assert render(template, long, TOOLS, NAMES)


HOSTILE: dict[str, str] = {
    "loops in loops": (
        "{% for i in range(10**5) %}{% for j in range(10**5) %}{% for k in range(10**5) %}{% endfor"
        " %}{% endfor %}{% endfor %}"
    ),
    "loops that only set": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i %}{% endfor %}{% endfor %}"
    ),
    "a text times a number": "{{ 'a' * 10**9 }}",
    "a text times a variable": "{% set n = 10**9 %}{{ 'a' * n }}",
    "a wide filter": "{{ 'a'|center(10**9) }}",
    "a wide method": "{{ 'a'.center(10**9) }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a wide format method": "{{ '{:>1000000000}'.format(1) }}",
    "a width from outside": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a width from a tuple": "{{ '%*d' % (1000000000, 1) }}",
    "a wide format filter": "{{ '%1000000000d'|format(1) }}",
    "a text doubled": (
        "{% set ns = namespace(a='a') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endf"
        "or %}{{ ns.a }}"
    ),
    "a text joined to itself": (
        "{% set ns = namespace(a='a') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endf"
        "or %}{{ ns.a }}"
    ),
    "lists in lists": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% end"
        "for %}{{ ns.a }}"
    ),
    "namespaces in namespaces": (
        "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns = namespace(x=[ns, ns]) %}{{ ns }}{% endfor %}"
        "{% set a = namespace(x=1) %}{% set b = namespace(x=[a] * 99) %}{% set c = namespace(x=[b] * 99) %}"
        "{% set d = namespace(x=[c] * 99) %}{% set e = namespace(x=[d] * 99) %}{{ e }}"
    ),
    "a list doubled": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}"
    ),
    "a macro that calls itself twice": "{% macro f(n) %}{{ f(n-1) }}{{ f(n-1) }}{% endmacro %}{{ f(100) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a block kept": (
        "{% set x %}{{ 'a'*100000 }}{% endset %}{% set y %}{% for i in range(99999) %}{{ x }}{% end"
        "for %}{% endset %}"
    ),
    "a text in a text": "{% set s='a'*100000 %}{{ s.replace('', s) }}",
    "a text in a text by filter": "{% set s='a'*100000 %}{{ s|replace('a', s) }}",
    "a long glue": "{% set s='a'*100000 %}{{ s.join(range(90000)|list) }}",
    "a long glue by filter": "{% set s='a'*100000 %}{{ range(90000)|join(s) }}",
    "a long glue for a map": "{% set s='a'*100000 %}{{ range(90000)|map('string')|join(s) }}",
    "dummy text": "{{ lipsum(n=10**6) }}",
    "a deep indent": "{{ ('a\n'*100000)|indent(100000) }}",
    "a deep indent of JSON": "{{ range(90000)|list|tojson(indent=90000) }}",
    "a wide batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "many slices": "{{ [1]|slice(10**9)|list }}",
    "a long number": "{{ (1).to_bytes(10**9,'big') }}",
    "bytes": "{{ 'a'.encode().center(10**9) }}",
    "wide tabs": "{{ '\t'.expandtabs(10**9) }}",
    "many zeros": "{{ 'a'.zfill(10**9) }}",
    "a wide date": "{{ strftime_now('%1000000000d') }}",
    "lists added up": "{{ [[1]*1000]*1000|sum(start=[]) }}",
    "tables in tables": (
        "{% set ns=namespace(a={}) %}{% for i in range(60) %}{% set ns.a = dict(x=ns.a,y=ns.a) %}{%"
        " endfor %}{{ ns.a }}"
    ),
    "callers that call": (
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call m() %}" * 40
        + "x"
        + "{% endcall %}" * 40
    ),
    "sorting again and again": "{% for i in range(99999) %}{{ range(99999)|sort|length }}{% endfor %}",
    "copies of a long text": "{% set s='a'*7000000 %}{% for i in range(99999) %}{% set x = s[1:] %}{% endfor %}",
    "searching a long text": "{% set s='a'*7000000 %}{% for i in range(99999) %}{% if 'b' in s %}{% endif %}{% endfor %}",
    "a block in itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "parentheses": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "a long template": "{{a}}" * 25_000,
    "deep conditions": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "a number squared": (
        "{% set ns = namespace(a=10) %}{% for i in range(60) %}{% set ns.a = ns.a * ns.a %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_ends_soon_and_makes_little(name: str) -> None:
    """Loops in loops ran for ever: no deadline can interrupt Jinja."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(Exception):  # noqa: B017, PT011  # a template may fail in any way, and reading.py takes each
        render(HOSTILE[name], CHAT, None, NAMES)
    assert time.process_time() - began < 20  # 2 at most on a core of ours
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_what_a_template_writes_is_bounded() -> None:
    long = "{% for i in range(90000) %}" + "a" * 1000 + "{% endfor %}"
    with pytest.raises(Exception, match=r"writes too much|makes too much"):
        render(long, CHAT, None, NAMES)
    assert len(render("{{ 'a' * 100000 }}", CHAT, None, NAMES)) == 100_000 < SIZE
