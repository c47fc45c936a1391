"""Writes template_cases.txt and template_chats.txt: what Jinja2 prints for templates, set up as Hugging Face sets it up.

Run from the repository root with a Python that has jinja2 (3.1.6 was used) and gguf; the chat templates of real models are read from the
GGUF files given as arguments and stored in the golden file:  python tests/golden/template_cases.py smollm2.gguf qwen2.5.gguf

File format: records, each a header line and then the counted bytes, every part followed by one newline.
    template NAME N        N bytes of template
    vars NAME N            N bytes of JSON
    output TEMPLATE VARS N N bytes of result
    error TEMPLATE VARS    rendering or parsing fails
Small cases share the vars "base".
"""
import datetime
import json
import sys

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1700000000  # 2023-11-14 22:13:20 UTC


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(fmt):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(fmt)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.filters["from_json"] = json.loads
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = strftime_now


def render(template, variables):
    try:
        return env.from_string(template).render(**variables)
    except Exception:
        return None


BASE = {
    "name": "World", "empty": "", "n": 7, "neg": -7, "f": 2.5, "big": 1e20, "t": True, "fa": False, "nothing": None,
    "uni": "Grüße, 世界 🎉", "quote": "it's", "quotes": "it's \"so\"", "ctl": "a\tb\nc\\d\u0001\u00a0é", "html": "<a & 'b'>",
    "xs": [3, 1, 2], "ws": ["b", "A", "c", "a", "B"], "mixed": [1, "a", None, True, 2.5, [1, (2)], {"k": "v"}],
    "d": {"b": 2, "a": 1, "C": 3}, "nested": {"a": {"b": {"c": [10, 20, {"d": "deep"}]}}, "items": "shadow", "x y": 1},
    "users": [{"name": "Ann", "age": 30, "city": "Rome", "on": True}, {"name": "bob", "age": 25, "city": "rome", "on": False},
              {"name": "Cid", "age": 30, "city": "Bern"}],
    "pairs": [["k1", 1], ["k2", 2]], "s": "  padded text\n ", "csv": "a,b,,c", "para": "line one\nline two\n\nline four\n",
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
}

# name -> template. What Jinja2 says is the expected result, errors included.
CASES = r"""
white_trim_blocks ¦ a\n{% if t %}\nb\n{% endif %}\nc
white_lstrip ¦ a\n    {% if t %}\n  b\n    {% endif %}\nc
white_lstrip_text_before ¦ x {% if t %}\ny{% endif %}
white_minus_left ¦ a  \n\n  {%- if t %} b {% endif -%}  \n c
white_minus_variable ¦ a \n {{- name -}} \n b
white_plus_left ¦ a\n  {%+ if t %}b{% endif %}
white_plus_right ¦ {% if t +%}\nb{% endif %}
white_variable_keeps ¦   {{ name }}\n  {{ name }}\n
white_comment ¦ a\n  {# note #}\nb{#- x -#}\n c {# {{ name }} {% if %} #}d
white_comment_plus ¦ a {#+ x +#}\n b
white_raw ¦ {% raw %}\n{{ name }} {% if %}\n{% endraw %}\nend
white_raw_minus ¦ a {%- raw -%}  {{ x }} {%- endraw -%}  b
white_raw_indent ¦ a\n  {% raw %}\n  x\n  {% endraw %}\nb
white_crlf ¦ a\r\n{% if t %}\r\nb\r{% endif %}\r\nc
white_final_newline ¦ a\n
white_final_newlines ¦ a\n\n
white_only_newline ¦ \n
white_empty_tag_lines ¦ {% set a = 1 %}\n\n{% set b = 2 %}\n{{ a + b }}
white_unicode_space ¦ a\u00a0\u3000{%- if t %}b{% endif %}
white_tab_indent ¦ \t{% if t %}\n\tb\n\t{% endif %}\n
white_end_minus_newline ¦ {% if t -%}\n\n   x {%- endif %}\n y
data_braces ¦ { {{ name }} } } { % } %} }} #} {
precedence_concat ¦ {{ 1 + 1 ~ 2 + 2 }}
brace_data ¦ a { b } c {{ '{{' }} {{ '}}' }} {{ "%}" }}
print_none ¦ {{ nothing }}|{{ t }}|{{ fa }}|{{ n }}|{{ f }}|{{ big }}
print_floats ¦ {{ 1.0 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.5e300 }} {{ 0.1 + 0.2 }} {{ 1/3 }} {{ -0.0 }} {{ 123456789.123 }} {{ 1e22 }} {{ 5e-324 }}
print_list ¦ {{ mixed }} {{ [] }} {{ {} }} {{ () }} {{ (1,) }} {{ (1, 'a') }}
print_dict ¦ {{ d }} {{ nested }} {{ {1: none, none: 1, true: [], 2.5: 'x'} }}
print_repr_quotes ¦ {{ [quote, quotes, ctl, uni, html, '\u200b\u2028\x7f'] }}
print_undefined ¦ [{{ missing }}] {{ [missing] }} {{ missing ~ 'x' }}
print_views ¦ {{ d.keys() }} {{ d.values() }} {{ d.items() }} {{ range(3) }} {{ range(1, 9, 3) }}
print_namespace ¦ {{ namespace(a=1, b='x') }}
undefined_attr ¦ {{ missing.attr }}
undefined_item ¦ {{ missing['a'] }}
undefined_call ¦ {{ name.nope() }}
undefined_add ¦ {{ missing + 'a' }}
undefined_attr_of_dict ¦ [{{ d.nope }}] {{ d.nope is defined }} {{ d['nope'] is undefined }}
undefined_deep ¦ {{ d.nope.deeper }}
undefined_index ¦ [{{ xs[10] }}] [{{ xs[-9] }}] [{{ name[99] }}]
undefined_loop ¦ {% for x in missing %}x{% else %}none{% endfor %}
undefined_eq ¦ {{ missing == missing2 }} {{ missing == none }} {{ missing != 'a' }}
undefined_lt ¦ {{ missing < 1 }}
undefined_in ¦ {{ 'a' in missing }}
undefined_length ¦ {{ missing|length }} {{ missing|list }} {{ missing|join(',') }}|{{ missing|upper }}|{{ missing|string }}
undefined_bool ¦ {{ 'y' if missing else 'n' }} {{ not missing }} {{ missing and 1 }} {{ missing or 1 }}
none_attr ¦ [{{ nothing.x }}] [{{ nothing['x'] }}] {{ n.x is defined }}
none_add ¦ {{ 'a' + nothing }}
none_in ¦ {{ 'a' in nothing }}
none_iter ¦ {% for x in nothing %}{% endfor %}
int_iter ¦ {% for x in n %}{% endfor %}
int_math ¦ {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7 - 10 }} {{ 3 * 4 }}
float_math ¦ {{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1e308 * 10 }} {{ 2 ** 0.5 }} {{ 0.1 * 3 }} {{ 5 % 2.5 }} {{ -1.0 // 3 }}
bool_math ¦ {{ true + 1 }} {{ true * 3 }} {{ true == 1 }} {{ false == 0 }} {{ 1 == 1.0 }} {{ true + true }}
div_zero ¦ {{ 1 / 0 }}
mod_zero ¦ {{ 1 % 0 }}
floordiv_zero ¦ {{ 1.5 // 0 }}
add_types ¦ {{ 'a' + 1 }}
sub_str ¦ {{ 'a' - 'b' }}
precedence_1 ¦ {{ 1 + 2 * 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ (1 + 2) * 3 }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 100 // 7 // 2 }}
precedence_2 ¦ {{ (1 + 1) ~ 2 * 3 ~ -1 }} {{ 1 ~ 2 * 3 }} {{ 'a' ~ 1 == 'a1' }} {{ 1 < 2 and 2 < 3 or false }} {{ not 1 == 2 }} {{ not true or true }}
precedence_3 ¦ {{ -n|abs }} {{ (-n)|abs }} {{ 1 + xs|length }} {{ 'a' + 'b'|upper }} {{ -1 + 2 }} {{ - -3 }} {{ +4 }}
precedence_4 ¦ {{ 1 if true else 2 if false else 3 }} {{ 1 if false else 2 if false else 3 }} {{ (1 if true else 2) + 5 }}
precedence_5 ¦ {{ 'a' in 'abc' and 'z' not in 'abc' }} {{ not 'a' in 'abc' }} {{ 1 in [1, 2] == true }} {{ n is odd and n is not even }}
inline_if_no_else ¦ [{{ 'a' if fa }}] [{{ ('a' if fa) is defined }}] {{ 'x' if t }}
inline_if_no_else_used ¦ {{ ('a' if fa) + 'b' }}
chained_compare ¦ {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 >= 2 != 1 }} {{ 1 == 1 == 1 }} {{ 5 > n > 2 }}
compare_strings ¦ {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ 'é' > 'z' }} {{ 'a' < 'aa' }} {{ [1, 2] < [1, 3] }} {{ (1, 2) < (1, 2, 0) }}
compare_mixed ¦ {{ 1 < 'a' }}
compare_none ¦ {{ nothing < 1 }}
equality ¦ {{ [1, 2] == [1, 2] }} {{ [1] == (1,) }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ 'a' == 1 }} {{ none == false }} {{ 0 == false }} {{ '' == none }}
in_containers ¦ {{ 2 in xs }} {{ 'a' in d }} {{ 'q' not in d }} {{ 2 in d.values() }} {{ 1 in (1, 2) }} {{ 2.0 in xs }} {{ 'a' in ['a'] }} {{ '' in 'x' }} {{ 3 in range(5) }}
in_string_int ¦ {{ 1 in 'a1' }}
literals ¦ {{ [1, 2, 3,] }} {{ {'a': 1, 'b': [2],} }} {{ (1, 2,) }} {{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5E-2 }} {{ 'a' 'b' "c" }}
literal_strings ¦ {{ 'it\'s' }} {{ "q\"q" }} {{ 'a\nb\tc\\d' }} {{ '\x41\u00e9\U0001F389\101' }} {{ 'un\known\q' }} {{ "line
break" }}
literal_names ¦ {{ True }} {{ true }} {{ None }} {{ none }} {{ False }}
tuple_output ¦ {{ 1, 2 }} {{ (1) }}
dict_duplicate ¦ {{ {'a': 1, 'a': 2} }} {{ {1: 'i', 1.0: 'f', true: 'b'} }}
dict_unhashable ¦ {{ {[1]: 2} }}
subscript_dot_int ¦ {{ xs.0 }} {{ nested.a.b.c.2.d }} {{ pairs.1.0 }}
subscript_mixed ¦ {{ nested['a'].b['c'][1] }} {{ nested['x y'] }} {{ messages[0].role }} {{ messages[-1]['content'] }} {{ xs[true] }}
dict_method_wins ¦ {{ nested.items() | list | length }} {{ nested['items'] }} {{ nested.items is callable }}
dict_get ¦ {{ d.get('a') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d['get'] is callable }} {{ d.get('q', none) is none }}
slices ¦ {{ xs[1:] }} {{ xs[:-1] }} {{ xs[::-1] }} {{ xs[::2] }} {{ xs[5:] }} {{ xs[-2:] }} {{ xs[1:2] }} {{ xs[:] }} {{ xs[2:0:-1] }} {{ (1, 2, 3)[1:] }}
slices_str ¦ {{ name[1:3] }} {{ name[::-1] }} {{ uni[7:] }} {{ uni[-1] }} {{ uni[::2] }} {{ name[-3:-1] }} {{ uni[7] }} {{ name[10:] }}| {{ name[::-2] }}
slices_none ¦ {{ xs[none:none] }} {{ xs[0:n] }} {{ range(10)[2:5] | list }} {{ xs[-100:100] }}
slice_step_zero ¦ {{ xs[::0] }}
slice_dict ¦ [{{ d[1:2] }}]
string_repeat ¦ {{ 'ab' * 3 }} {{ 3 * '-' }} {{ 'x' * 0 }}| {{ 'x' * -1 }}| {{ [1, 2] * 2 }} {{ (0,) * 3 }}
concat ¦ {{ 1 ~ 'a' ~ 2.5 ~ none ~ true ~ missing }} {{ xs ~ d }}
list_add ¦ {{ xs + [4] }} {{ (1,) + (2,) }} {{ [] + xs }}
list_add_tuple ¦ {{ [1] + (2,) }}
for_basic ¦ {% for x in xs %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}
for_loop_vars ¦ {% for x in xs %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.depth }}/{{ loop.depth0 }};{% endfor %}
for_prev_next ¦ {% for x in xs %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {{ loop.previtem is defined }} {{ loop.nextitem is defined }};{% endfor %}
for_cycle ¦ {% for x in ws %}{{ loop.cycle('odd', 'even') }} {% endfor %}
for_changed ¦ {% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}
for_else ¦ {% for x in [] %}x{% else %}empty{% endfor %}{% for x in [1] %}x{% else %}empty{% endfor %}
for_filter ¦ {% for x in range(10) if x is odd %}{{ x }}:{{ loop.index }}:{{ loop.length }}:{{ loop.last }} {% else %}none{% endfor %}
for_filter_none ¦ {% for x in xs if x > 5 %}{{ x }}{% else %}none{% endfor %}
for_filter_lazy ¦ {% set ns = namespace(stop=false) %}{% for x in xs if not ns.stop %}{{ x }}{% set ns.stop = true %}{% endfor %}
for_unpack ¦ {% for k, v in pairs %}{{ k }}={{ v }};{% endfor %}{% for (a, b) in d.items() %}{{ a }}{{ b }} {% endfor %}{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}
for_unpack_bad ¦ {% for a, b in [[1, 2, 3]] %}{% endfor %}
for_unpack_few ¦ {% for a, b in [[1]] %}{% endfor %}
for_dict ¦ {% for k in d %}{{ k }}{% endfor %} {% for k, v in d|items %}{{ k }}{{ v }}{% endfor %} {% for k, v in d|dictsort %}{{ k }}{{ v }}{% endfor %}
for_string ¦ {% for c in 'añ🎉' %}[{{ c }}]{% endfor %}
for_tuple_literal ¦ {% for x in 1, 2, 3 %}{{ x }}{% endfor %}
for_nested ¦ {% for x in [1, 2] %}{% for y in ['a', 'b'] %}{{ x }}{{ y }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}
for_outer_loop ¦ {% for x in [1, 2] %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
for_scope ¦ {% set x = 'out' %}{% for i in [1, 2] %}{{ x }} {% set x = i %}{{ x }} {% endfor %}{{ x }}
for_scope_target ¦ {% set i = 'out' %}{% for i in [1, 2] %}{{ i }}{% endfor %}{{ i }}
for_scope_undefined ¦ {% for i in [1] %}{% set y = 1 %}{% endfor %}[{{ y }}]
for_break ¦ {% for x in range(10) %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}!
for_continue ¦ {% for x in range(6) %}{% if x is even %}{% continue %}{% endif %}{{ x }}{% endfor %}!
for_break_nested ¦ {% for x in [1, 2] %}{% for y in [1, 2, 3] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{{ x }};{% endfor %}
for_break_else ¦ {% for x in [1] %}{% break %}{% else %}e{% endfor %}
for_continue_else ¦ {% for x in [1] %}{% continue %}{% else %}e{% endfor %}{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}f{% endfor %}
for_loop_outside ¦ {% for x in [1] %}{% endfor %}[{{ loop }}]
for_generator ¦ {% for u in users | selectattr('on') %}{{ u.name }} {{ loop.length }} {{ loop.last }}{% endfor %}
for_loop_last_gen ¦ {% for x in xs | map('string') %}{{ x }}{{ loop.revindex }}{{ ',' if not loop.last }}{% endfor %}
for_inline_condition ¦ {% for m in (messages if t else []) %}{{ m.role }} {% endfor %}
if_chain ¦ {% for x in [0, 1, 2, 3] %}{% if x == 0 %}zero{% elif x == 1 %}one{% elif x == 2 %}two{% else %}many{% endif %} {% endfor %}
if_truth ¦ {% for v in [0, 1, '', 'a', [], [0], {}, {'a': 1}, none, 0.0, 0.1, (), false] %}{{ 1 if v else 0 }}{% endfor %}
if_scope ¦ {% if t %}{% set z = 1 %}{% endif %}{{ z }}{% for i in [1] %}{% if t %}{% set z = 2 %}{% endif %}{{ z }}{% endfor %}{{ z }}
set_multi ¦ {% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d2) = [3, 4] %}{{ c }}{{ d2 }}{% set t3 = 1, 2 %}{{ t3 }}
set_block ¦ {% set x %}  hello {{ name }}{% set inner = 1 %} {% endset %}[{{ x }}][{{ inner }}]{{ x | length }}
set_block_filter ¦ {% set x | trim | upper %}  hello {{ name }} {% endset %}[{{ x }}]
set_namespace ¦ {% set ns = namespace(a=1) %}{% for i in [1, 2, 3] %}{% set ns.a = ns.a + i %}{% set ns.b = i %}{% endfor %}{{ ns.a }} {{ ns.b }} [{{ ns.c }}]
set_namespace_dict ¦ {% set ns = namespace({'x': 1}, y=2) %}{{ ns.x }}{{ ns.y }}{{ ns['x'] }}
set_not_namespace ¦ {% set d2 = {} %}{% set d2.a = 1 %}
set_undefined_namespace ¦ {% set nope.a = 1 %}
set_shadow_global ¦ {% set range = 5 %}{{ range }}
set_unpack_bad ¦ {% set a, b = 1, 2, 3 %}
with_block ¦ {% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}[{{ b }}]
macro_basic ¦ {% macro m(a, b='B', c=none) %}[{{ a }}|{{ b }}|{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}
macro_missing ¦ {% macro m(a) %}[{{ a }}{{ a is defined }}]{% endmacro %}{{ m() }}
macro_default_refers ¦ {% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
macro_too_many ¦ {% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
macro_unknown_kw ¦ {% macro m(a) %}{% endmacro %}{{ m(z=2) }}
macro_twice ¦ {% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
macro_varargs ¦ {% macro m(a) %}{{ a }} {{ varargs }} {{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}{{ m(1) }}
macro_recursive ¦ {% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k }}*{{ fact(k - 1) }}{% endif %}{% endmacro %}{{ fact(5) }}
macro_tree ¦ {% macro show(v) %}{% if v is mapping %}{{ '{' }}{% for k in v %}{{ k }}:{{ show(v[k]) }},{% endfor %}{{ '}' }}{% elif v is iterable and v is not string %}[{% for x in v %}{{ show(x) }},{% endfor %}]{% else %}{{ v }}{% endif %}{% endmacro %}{{ show(nested) }}
macro_sees_globals ¦ {% macro m() %}{{ name }}{{ later }}{% endmacro %}{% set later = '!' %}{{ m() }}
macro_in_loop ¦ {% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}
macro_set_inside ¦ {% set a = 1 %}{% macro m() %}{% set a = 2 %}{{ a }}{% endmacro %}{{ m() }}{{ a }}
macro_is_value ¦ {% macro m(x) %}<{{ x }}>{% endmacro %}{% set f2 = m %}{{ f2(1) }}{{ m is callable }}{{ 'a' + m(2) + 'b' }}
macro_whitespace ¦ {% macro m(x) %}\n  {{ x }}\n{% endmacro %}\n[{{ m(1) }}]
macro_calls_macro ¦ {% macro a(x) %}a{{ x }}{% endmacro %}{% macro b(x) %}{{ a(x) }}b{% endmacro %}{{ b(1) }}
call_block ¦ {% macro m(x) %}<{{ caller() }}{{ x }}>{% endmacro %}{% call m(1) %}body {{ name }}{% endcall %}
call_block_args ¦ {% macro m(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(a, b) m([5, 6]) %}[{{ a }}-{{ b }}]{% endcall %}
call_block_no_caller ¦ {% macro m() %}x{% endmacro %}{% call m() %}b{% endcall %}
caller_undefined ¦ {% macro m() %}{{ caller is defined }}{{ 'y' if caller else 'n' }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}
filter_block ¦ {% filter upper %}abc {{ name }}{% endfilter %} {% filter trim | replace('a', 'b') %}  aaa {% endfilter %}
generation ¦ {% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}
generation_scope ¦ {% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}[{{ a }}]
tests_kinds ¦ {% for v in [1, 1.5, true, none, 'a', [1], (1,), {'a': 1}, range(2)] %}{{ v is number }}{{ v is integer }}{{ v is float }}{{ v is boolean }}{{ v is none }}{{ v is string }}{{ v is sequence }}{{ v is mapping }}{{ v is iterable }}{{ v is callable }} {% endfor %}
tests_undefined ¦ {{ missing is defined }} {{ missing is undefined }} {{ missing is none }} {{ missing is sequence }} {{ missing is iterable }} {{ missing is string }} {{ missing is callable }} {{ missing is number }}
tests_args ¦ {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(4) }} {{ 1 is eq 1 }} {{ 1 is ne(2) }} {{ 1 is lt 2 }} {{ 2 is gt 1 }} {{ 1 is in [1] }} {{ 2 is ge 2 }} {{ 3 is le 2 }} {{ 'a' is equalto 'a' }} {{ 1 is not in [1] }}
tests_parity ¦ {{ 3 is odd }} {{ 3 is even }} {{ -3 is odd }} {{ 4 is even }} {{ 3.0 is odd }}
tests_parity_str ¦ {{ 'a' is odd }}
tests_case ¦ {{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aB' is lower }} {{ '1' is lower }} {{ 'É' is upper }}
tests_bool ¦ {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is sameas none }} {{ true is sameas true }} {{ xs is sameas xs }} {{ [1] is sameas [1] }}
tests_meta ¦ {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ 'nope' is test }}
tests_else ¦ {{ 'a' if x is defined else 'b' }} {{ 'a' if n is not none and t else 'b' }} {{ n is not string or t }}
tests_postfix ¦ {{ 3 is in d.values() }} {{ 2 is eq xs[2] }} {{ 'a' is in name.lower() }}
views_not_sequence ¦ {{ d.items() is sequence }} {{ d.items() is iterable }} {{ d.items() | length }} {{ d.keys() | list }} {{ d.items()[0] is defined }}
generator_truth ¦ {{ 'y' if users | selectattr('nope') else 'n' }} {{ users | selectattr('nope') | list | length }}
generator_length ¦ {{ users | map(attribute='name') | length }}
generator_once ¦ {% set g = xs | map('string') %}{{ g | join }}|{{ g | join }}
f_tojson ¦ {{ mixed | tojson }} {{ nested | tojson }} {{ uni | tojson }} {{ ctl | tojson }} {{ html | tojson }} {{ none | tojson }} {{ 1.0 | tojson }} {{ (1, 2) | tojson }} {{ [] | tojson }} {{ {} | tojson }}
f_tojson_indent ¦ {{ nested | tojson(indent=2) }} {{ {'a': [], 'b': {}} | tojson(indent=4) }} {{ [1, [2]] | tojson(indent=0) }} {{ [1] | tojson(indent='--') }}
f_tojson_sort ¦ {{ d | tojson(sort_keys=true) }} {{ d | tojson(separators=(',', ':')) }} {{ uni | tojson(ensure_ascii=true) }} {{ d | tojson(indent=1, separators=(';', '=')) }} {{ uni | tojson(true) }}
f_tojson_keys ¦ {{ {1: 1, none: 2, true: 3, 1.5: 4} | tojson }}
f_tojson_undefined ¦ {{ missing | tojson }}
f_tojson_view ¦ {{ d.items() | tojson }}
f_tojson_big ¦ {{ 1e20 | tojson }} {{ 1e-7 | tojson }} {{ 123456789012345 | tojson }}
f_from_json ¦ {{ ('{"a": [1, 2.5, null, "x"]}' | from_json).a }}
f_length ¦ {{ xs | length }} {{ d | length }} {{ uni | length }} {{ '' | length }} {{ xs | count }} {{ range(4) | length }}
f_length_int ¦ {{ n | length }}
f_trim ¦ [{{ s | trim }}] [{{ 'xxaxx' | trim('x') }}] [{{ n | trim }}] [{{ '\u00a0a\u3000' | trim }}]
f_string ¦ {{ n | string }} {{ xs | string }} {{ (n | string) is string }} {{ none | string }}
f_default ¦ {{ missing | default('d') }} {{ empty | default('d') }} {{ empty | default('d', true) }} {{ nothing | default('d') }} {{ nothing | default('d', boolean=true) }} {{ missing | d(5) }} [{{ missing | default }}] {{ d.q | default(d.a) }}
f_default_deep ¦ {{ missing.x | default('d') }}
f_join ¦ {{ xs | join }} {{ xs | join(', ') }} {{ users | join('/', attribute='name') }} {{ 'abc' | join('-') }} {{ d | join(',') }} {{ [1, none, true] | join(' ') }} {{ [] | join(',') }}|{{ xs | join(1) }}
f_items ¦ {% for k, v in d | items %}{{ k }}{{ v }}{% endfor %} {{ missing | items | list }}
f_items_list ¦ {{ xs | items | list }}
f_list ¦ {{ 'añ' | list }} {{ d | list }} {{ range(3) | list }} {{ (1, 2) | list }}
f_select ¦ {{ range(8) | select('odd') | list }} {{ range(8) | reject('divisibleby', 3) | list }} {{ [0, 1, '', 'a'] | select | list }} {{ range(5) | select('gt', 2) | list }} {{ xs | select('in', [1, 2]) | list }} {{ xs | select('==', 1) | list }} {{ [0, 1] | reject | list }}
f_selectattr ¦ {{ users | selectattr('on') | map(attribute='name') | list }} {{ users | selectattr('age', 'eq', 30) | map(attribute='name') | join(',') }} {{ users | rejectattr('age', 'gt', 26) | map(attribute='name') | list }} {{ users | rejectattr('on') | list | length }} {{ users | selectattr('on', 'defined') | list | length }} {{ users | selectattr('city', 'equalto', 'Bern') | first | tojson }}
f_select_unknown ¦ {{ xs | select('nope') | list }}
f_map ¦ {{ ws | map('upper') | join }} {{ users | map(attribute='age') | sum }} {{ users | map(attribute='on', default='?') | list }} {{ xs | map('string') | list }} {{ ['a b', 'c'] | map('replace', ' ', '_') | list }} {{ [[3, 1], [2]] | map('first') | list }} {{ pairs | map(attribute=0) | list }} {{ [nested] | map(attribute='a.b.c.0') | list }}
f_map_unknown ¦ {{ xs | map('nope') | list }}
f_dictsort ¦ {{ d | dictsort }} {{ d | dictsort(true) }} {{ d | dictsort(false, 'value') }} {{ d | dictsort(reverse=true) }} {{ d | dictsort(by='value', reverse=true) }}
f_sort ¦ {{ xs | sort }} {{ ws | sort }} {{ ws | sort(case_sensitive=true) }} {{ xs | sort(reverse=true) }} {{ users | sort(attribute='age') | map(attribute='name') | list }} {{ users | sort(attribute='age,name', reverse=true) | map(attribute='name') | list }} {{ 'hello' | sort | join }}
f_sort_mixed ¦ {{ mixed | sort }}
f_unique ¦ {{ ['b', 'a', 'B', 'b', 1, 1.0, true] | unique | list }} {{ ws | unique(true) | list }} {{ users | unique(attribute='city') | map(attribute='name') | list }}
f_min_max ¦ {{ xs | min }} {{ xs | max }} {{ ws | min }} {{ ws | max(case_sensitive=true) }} {{ users | min(attribute='age') | tojson }} [{{ [] | max }}] {{ (users | max(attribute='age')).name }}
f_sum ¦ {{ xs | sum }} {{ [1.5, 2] | sum }} {{ users | sum(attribute='age') }} {{ [] | sum(start=5) }} {{ xs | sum(start=10) }}
f_first_last ¦ {{ xs | first }} {{ xs | last }} [{{ [] | first }}] {{ name | first }} {{ name | last }} {{ d | first }} {{ d | last }} {{ range(5) | last }}
f_reverse ¦ {{ name | reverse }} {{ xs | reverse | list }} {{ uni | reverse }} {{ d | reverse | list }}
f_case ¦ {{ uni | upper }} {{ uni | lower }} {{ 'hELLO wORLD' | capitalize }} {{ "they're bill's-friends (from) the UK" | title }} {{ 'straße éa' | upper }} {{ 'ÀÉÎ ΑΒΓ ДЖ' | lower }} {{ 'éa' | capitalize }}
f_replace ¦ {{ 'aaaa' | replace('a', 'b') }} {{ 'aaaa' | replace('a', 'b', 2) }} {{ 'abc' | replace('', '-') }} {{ n | replace('7', '8') }} {{ 'ab' | replace('b', '') }} {{ 'aXbX' | replace('X', uni) }}
f_int ¦ {{ '42' | int }} {{ ' 42 ' | int }} {{ '42.9' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ -3.9 | int }} {{ true | int }} {{ '0x1A' | int(0, 16) }} {{ '1A' | int(base=16) }} {{ none | int(5) }} {{ '1_000' | int }} {{ '-5' | int }} {{ '1e3' | int }} {{ '' | int }} {{ [] | int }}
f_float ¦ {{ '4.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ 3 | float }} {{ true | float }} {{ '1e3' | float }} {{ none | float }} {{ ' .5 ' | float }}
f_int_undefined ¦ {{ missing | int }}
f_round ¦ {{ 42.55 | round }} {{ 42.55 | round(1) }} {{ 42.55 | round(1, 'floor') }} {{ 42.5 | round }} {{ 43.5 | round }} {{ 2.675 | round(2) }} {{ 42.1 | round(0, 'ceil') }} {{ 7 | round }} {{ -2.5 | round }} {{ 1234.5 | round(-2) }} {{ 42 | round(method='ceil') }} {{ 42.55 | round | int }}
f_round_bad ¦ {{ 1.5 | round(1, 'up') }}
f_abs ¦ {{ neg | abs }} {{ -2.5 | abs }} {{ true | abs }}
f_abs_str ¦ {{ 'a' | abs }}
f_indent ¦ {{ para | indent }}|{{ para | indent(2) }}|{{ para | indent(2, true) }}|{{ para | indent(2, blank=true) }}|{{ para | indent('> ') }}|{{ '' | indent }}|{{ 'a' | indent(2, first=true) }}|{{ 'a\n\n' | indent(width=3) }}|
f_groupby ¦ {% for city, us in users | groupby('city') %}{{ city }}:{{ us | map(attribute='name') | join(',') }};{% endfor %}{% for g in users | groupby('age') %}{{ g.grouper }}{{ g.list | length }} {% endfor %}{{ users | groupby('on', default=false) | map('first') | list }} {{ users | groupby('city', case_sensitive=true) | map(attribute='grouper') | list }}
f_batch ¦ {{ range(7) | batch(3) | list }} {{ range(7) | batch(3, 0) | list }} {{ [] | batch(2) | list }}
f_slice ¦ {{ range(7) | slice(3) | list }} {{ range(7) | slice(3, 'x') | list }}
f_escape ¦ {{ html | e }} {{ html | escape }} {{ html | safe }} {{ html | e | e }} {{ html | forceescape }} {{ n | e }} {{ (html | safe) is escaped }}
f_safe_add ¦ {{ (html | safe) + '<b>' }} {{ '<b>' + (html | e) }} {{ (html | safe) ~ '<b>' }} {{ ['a' | safe] }}
f_center ¦ [{{ 'ab' | center(7) }}] [{{ 'abc' | center(6) }}] [{{ 'abcdef' | center(3) }}]
f_truncate ¦ {{ 'foo bar baz qux' | truncate(9) }} {{ 'foo bar baz qux' | truncate(9, true) }} {{ 'foo bar baz qux' | truncate(11) }} {{ 'foo bar baz qux' | truncate(11, false, '...', 0) }} {{ 'foobarbazqux' | truncate(6, end='>', leeway=0) }}
f_wordcount ¦ {{ 'one two, three_four 5 ünï' | wordcount }}
f_attr ¦ {{ d | attr('items') is callable }} [{{ d | attr('a') }}]
f_format ¦ {{ '%s is %d' | format('x', 5) }} {{ '%(a)s' | format(a=1) }}
percent ¦ {{ '%s %r %d %i %5d|%-5d|%05d %+d %x %X %o %e %.2f %g %c %%' % ('a', 'b', 1, 2.9, 3, 4, 5, 6, 255, 255, 8, 1.5, 2.345, 1e10, 'z') }}
percent_one ¦ {{ '%s' % 'a' }} {{ '%s' % 5 }} {{ '%5.1f|' % 2.25 }} {{ '%(name)s!' % {'name': 'N'} }} {{ '%s' % [1, 2] }} {{ '%s' % none }} {{ '%10s|%-10s|%.2s' % ('ab', 'cd', 'efg') }} {{ '%*d' % (5, 42) }} {{ '%#x' % 255 }} {{ '%r' % 'q' }}
percent_few ¦ {{ '%s %s' % 'a' }}
percent_many ¦ {{ '%s' % ('a', 'b') }}
percent_type ¦ {{ '%d' % 'a' }}
percent_bad ¦ {{ '%y' % 1 }}
format_method ¦ {{ '{} {}'.format(1, 'a') }} {{ '{0}{1}{0}'.format('x', 'y') }} {{ '{name}!'.format(name='N') }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}|{:05d}|{:+d}|{:,}|{:.2f}|{:x}|{:e}'.format('a', 'b', 'c', 'd', 42, 5, 1234567, 3.14159, 255, 12345.678) }} {{ '{{}}'.format() }} {{ '{0[a]} {0[b]}'.format(d) }} {{ '{!r}'.format('q') }} {{ '{:%}'.format(0.25) }} {{ '{:g}'.format(0.0001) }} {{ '{}'.format(none) }} {{ '{:5}|{:5}|'.format(1, 'a') }} {{ '{}'.format(1.5) }}
format_method_missing ¦ {{ '{} {}'.format(1) }}
m_split ¦ {{ csv.split(',') }} {{ ' a  b c '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a,b,c'.split(',', maxsplit=1) }} {{ 'abc'.split('x') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a</think>b'.split('</think>')[-1] }} {{ ' a b '.split(none, 1) }}
m_rsplit ¦ {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.rsplit(none, 1) }} {{ ' a  b '.rsplit() }} {{ 'abc'.rsplit('x') }}
m_split_empty ¦ {{ 'a'.split('') }}
m_strip ¦ [{{ s.strip() }}] [{{ s.lstrip() }}] [{{ s.rstrip() }}] [{{ 'xyax'.strip('xy') }}] [{{ '\n\na\n'.strip('\n') }}] [{{ 'xxa'.lstrip('x') }}] [{{ 'axx'.rstrip('x') }}]
m_case ¦ {{ 'aB'.upper() }} {{ 'aB'.lower() }} {{ "hello wORLD it's 3rd".title() }} {{ 'hELLO'.capitalize() }} {{ 'aBc'.swapcase() }}
m_affix ¦ {{ name.startswith('Wo') }} {{ name.endswith('ld') }} {{ name.startswith(('x', 'W')) }} {{ name.startswith('or', 1) }} {{ name.endswith('or', 0, 3) }} {{ name.startswith('') }} {{ 'a'.startswith('abc') }}
m_remove ¦ {{ name.removeprefix('Wo') }} {{ name.removesuffix('ld') }} {{ name.removeprefix('x') }}
m_find ¦ {{ name.find('o') }} {{ name.find('z') }} {{ uni.find('世') }} {{ 'abab'.rfind('b') }} {{ 'abab'.find('b', 2) }} {{ name.index('r') }} {{ 'aaa'.count('a') }} {{ 'aaa'.count('aa') }} {{ 'abc'.count('') }} {{ 'abc'.find('') }}
m_index_missing ¦ {{ name.index('z') }}
m_replace ¦ {{ 'a-b-c'.replace('-', '+') }} {{ 'a-b-c'.replace('-', '+', 1) }}
m_join ¦ {{ ', '.join(['a', 'b']) }} {{ '-'.join('abc') }} {{ ''.join([]) }}| {{ ','.join(d) }}
m_join_int ¦ {{ ','.join([1, 2]) }}
m_lines ¦ {{ para.splitlines() }} {{ 'a\r\nb\rc'.splitlines() }} {{ 'a\n'.splitlines(true) }} {{ ''.splitlines() }}
m_partition ¦ {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }} {{ 'abc'.rpartition('=') }}
m_pad ¦ [{{ 'ab'.ljust(4) }}] [{{ 'ab'.rjust(4) }}] [{{ 'ab'.center(5) }}] [{{ 'abc'.center(6) }}]
m_is ¦ {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ''.isdigit() }} {{ ' \t'.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ '世'.isalpha() }}
m_list ¦ {{ xs.index(1) }} {{ [1, 1, 2].count(1) }} {{ (1, 2).index(2) }} {{ xs.copy() }}
m_dict ¦ {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list }} {{ d.copy() == d }}
m_unknown_arg ¦ {{ name.strip(foo=1) }}
m_not_callable ¦ {{ name() }}
g_range ¦ {{ range(5) | list }} {{ range(2, 5) | list }} {{ range(10, 0, -3) | list }} {{ range(5, 2) | list }} {{ range(3)[1] }} {{ range(3)[-1] }}
g_range_float ¦ {{ range(1.5) }}
g_range_limit ¦ {{ range(100001) | length }}
g_range_max ¦ {{ range(100000) | length }}
g_range_step ¦ {{ range(1, 2, 0) }}
g_dict ¦ {{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([['k', 'v']]) }} {{ dict() }}
g_joiner ¦ {% set j = joiner('|') %}{% for x in xs %}{{ j() }}{{ x }}{% endfor %} {% set k = joiner() %}{{ k() }}a{{ k() }}b
g_cycler ¦ {% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.reset() }}{{ c.next() }}
g_strftime ¦ {{ strftime_now('%Y-%m-%d %d %b %B %A %a %H:%M:%S %y %j %I %p %%') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%-d %-m') }}
g_raise ¦ {{ raise_exception('bad roles') }}
g_raise_skipped ¦ {% if fa %}{{ raise_exception('x') }}{% endif %}ok
syntax_if ¦ {% if %}x{% endif %}
syntax_unclosed_if ¦ {% if t %}x
syntax_unclosed_var ¦ {{ name
syntax_unclosed_tag ¦ {% if t
syntax_unclosed_comment ¦ {# x
syntax_unclosed_raw ¦ {% raw %} x
syntax_unclosed_string ¦ {{ 'abc }}
syntax_wrong_end ¦ {% if t %}{% endfor %}
syntax_stray_end ¦ a{% endif %}
syntax_unknown_tag ¦ {% frobnicate %}
syntax_bracket ¦ {{ (1 + 2] }}
syntax_operator ¦ {{ 1 + }}
syntax_two ¦ {{ a b }}
syntax_empty ¦ {{ }}
syntax_assign ¦ {% set 1 = 2 %}
syntax_else_twice ¦ {% if t %}{% else %}{% else %}{% endif %}
syntax_unknown_filter ¦ {{ name | frobnicate }}
syntax_unknown_test ¦ {{ name is frobnicate }}
syntax_break ¦ {% break %}
syntax_dollar ¦ {{ $x }}
syntax_chain_is ¦ {{ 1 is odd is true }}
syntax_kw_order ¦ {{ dict(a=1, 2) }}
unknown_function ¦ {{ frobnicate(1) }}
colon_for ¦ {% for x in xs: %}{{ x }}{% endfor %}
colon_if ¦ {% if t: %}a{% else: %}b{% endif %}{% macro m(): %}c{% endmacro %}{{ m() }}
scope_macro_later_set ¦ {% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}
scope_call_loop ¦ {% macro m() %}{{ caller() }}{% endmacro %}{% for i in xs %}{% call m() %}{{ i }}{{ loop.index }}{% endcall %}{% endfor %}
scope_filter_block ¦ {% filter upper %}{% set a = 'b' %}{{ a }}{% endfilter %}[{{ a }}]
scope_if_in_macro ¦ {% macro m(v) %}{% if v %}{% set out = 'y' %}{% else %}{% set out = 'n' %}{% endif %}{{ out }}{% endmacro %}{{ m(1) }}{{ m(0) }}
scope_loop_shadow ¦ {% for loop2 in xs %}{% for x in [1] %}{{ loop.length }}{% endfor %}{{ loop.length }}{% endfor %}
test_string_if ¦ {{ 'a' if name is string else 'b' }} {{ 'c' if n is defined and n is not none and n > 3 else 'd' }}
precedence_is ¦ {{ 1 + 2 is odd }} {{ not n is even }} {{ n - 1 is even }} {{ -n is odd }} {{ n is odd == true }}
precedence_pipe_is ¦ {{ name | upper is upper }} {{ name | length is gt 3 }} {{ xs | length == 3 and name | lower != name }}
precedence_power_neg ¦ {{ 2 ** -1 * 4 }} {{ -2 ** 2 }} {{ (-2) ** 2 }} {{ 2 * -3 }}
call_chain ¦ {{ ' a,b '.strip().split(',')[1].upper() | lower }} {{ (name | list)[0] }} {{ 'x'.join(['1', '2'])[::-1] }} {{ messages[0].content.replace('h', 'H') }}
nested_quotes ¦ {{ "{\"a\": \"b\"}" }} {{ '{"name": "' + name + '"}' }} {{ '\\' }} {{ "\t|" }}
kwargs_trailing_comma ¦ {{ dict(a=1, b=2,) }} {{ [1, 2,][0] }}
escape_newlines ¦ {{ 'a\r\nb\u2028c' | tojson }} {{ 'a\r\n' | length }}
sharp_s ¦ {{ 'straße'.title() }} {{ 'aß'.swapcase() }} {{ 'ß'.upper() }} {{ 'straße'.islower() }}
undefined_seq ¦ {{ missing | sort }} {{ missing | reverse | list }} {{ missing | first is defined }} {{ missing | map('upper') | list }} {{ missing | unique | list }}
truncate_list ¦ {{ [1, 2] | truncate(5) }}
generator_reverse ¦ {{ xs | map('string') | reverse }}
test_chain ¦ {{ 1 is in([1]) is true }}
long_concat ¦ {{ 'a' + name + 'b' + name + 'c' + uni + 'd' ~ n ~ 'e' }}{% set acc = '' %}{% for x in xs %}{% set acc = acc + 'x' %}{{ acc }}{% endfor %}
ns_accumulate ¦ {% set ns = namespace(s='') %}{% for x in ws %}{% set ns.s = ns.s + x %}{% set keep = ns.s %}{% set ns.t = keep + '!' %}{% endfor %}{{ ns.s }} {{ ns.t }}
ns_list ¦ {% set ns = namespace(l=[]) %}{% for x in xs %}{% set ns.l = ns.l + [x * 2] %}{% endfor %}{{ ns.l }}
reverse_messages ¦ {% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role }} {% endfor %}{% set idx = (messages | length - 1) - 1 %}{{ idx }}
content_parts ¦ {% for p in [{'type': 'text', 'text': 'a'}, {'type': 'image'}] %}{% if p.type == 'text' %}{{ p.text }}{% elif p['type'] == 'image' %}<img>{% endif %}{% endfor %}
strings_in_loop ¦ {% for c in content if c %}{% endfor %}{% set parts = 'a<b>c'.split('<b>') %}{{ parts[0].rstrip('\n').split('x')[-1].lstrip('\n') + parts[-1] }}
"""

from template_chats import CHATS, CONVERSATIONS  # noqa: E402


def unescape(text):
    """Only newline, return, tab and unicode spaces outside of Jinja strings are written escaped; inside strings Jinja does it."""
    out, in_tag = "", False
    i = 0
    while i < len(text):
        if text.startswith(("{{", "{%"), i):
            in_tag = True
        if text.startswith(("}}", "%}"), i):
            in_tag = False
        if not in_tag and text[i] == "\\":
            c = text[i + 1]
            if c == "u":
                out += chr(int(text[i + 2:i + 6], 16))
                i += 6
                continue
            out += {"n": "\n", "r": "\r", "t": "\t"}[c]
            i += 2
            continue
        out += text[i]
        i += 1
    return out


def cases():
    import re
    for part in re.split(r"\n(?=\w+ ¦ )", CASES.strip("\n")):
        name, template = part.split(" ¦ ", 1)
        yield name, unescape(template)


def record(f, header, text):
    data = text.encode()
    f.write(f"{header} {len(data)}\n".encode() + data + b"\n")


def result(f, template_name, vars_name, text):
    if text is None:
        f.write(f"error {template_name} {vars_name}\n".encode())
    else:
        record(f, f"output {template_name} {vars_name}", text)


def main():
    with open("tests/golden/template_cases.txt", "wb") as f:
        record(f, "vars base", json.dumps(BASE, ensure_ascii=False))
        count = errors = 0
        for name, template in cases():
            record(f, f"template {name}", template)
            text = render(template, BASE)
            result(f, name, "base", text)
            count += 1
            errors += text is None
        print(f"{count} cases, {errors} of them errors")
    chats = dict(CHATS)
    for path in sys.argv[1:]:
        from gguf import GGUFReader
        field = GGUFReader(path).fields["tokenizer.chat_template"]
        chats["file_" + path.split("/")[-1].split(".")[0]] = field.contents()
    with open("tests/golden/template_chats.txt", "wb") as f:
        for name, variables in CONVERSATIONS.items():
            record(f, f"vars {name}", json.dumps(variables, ensure_ascii=False))
        errors = 0
        for name, template in chats.items():
            record(f, f"template {name}", template)
            for vars_name, variables in CONVERSATIONS.items():
                text = render(template, variables)
                errors += text is None
                result(f, name, vars_name, text)
        print(f"{len(chats)} chat templates x {len(CONVERSATIONS)} conversations, {errors} errors")


if __name__ == "__main__":
    main()
