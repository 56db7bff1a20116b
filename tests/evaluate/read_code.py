"""What models write where code or JSON is asked for, and what a careful person takes from it."""

_F = "def f(x):\n    return x + 1"

PROGRAMS: tuple[str, ...] = (
    _F,
    f" {_F}\n",
    f"```python\n{_F}\n```",
    f"```\n{_F}\n```",
    f"```py\n{_F}\n```\n",
    f"```Python\n{_F}\n```",
    f"```python3\n{_F}\n```",
    f"``` python\n{_F}\n```",
    f"````python\n{_F}\n````",
    f"~~~python\n{_F}\n~~~",
    f"~~~\n{_F}\n~~~",
    "```python\r\ndef f(x):\r\n    return x + 1\r\n```\r\n",
    f'```python title="a.py"\n{_F}\n```',
    f"```{{python}}\n{_F}\n```",
    f"```{{.python .numberLines}}\n{_F}\n```",
    "    ```python\n    def f(x):\n        return x + 1\n    ```",
    "1. Here it is:\n   ```python\n   def f(x):\n       return x + 1\n   ```\n",
    f"```python\n{_F}",
    f"Here is the function:\n\n```python\n{_F}\n```\n\nIt adds one to x.",
    f"Here is the function:\n\n{_F}\n\nThis function adds one to x.",
    f"Sure! Here you go:\n{_F}\nHope this helps!",
    f"{_F}\n\nExplanation: the function returns x plus one.",
    f"{_F}\n\n# Example usage\nprint(f(3))",
    "```python\nimport math\n```\n\nThen:\n\n```python\ndef f(x):\n    return math.floor(x) + 1\n```",
    f"First install it:\n\n```bash\npip install numpy\n```\n\n```python\n{_F}\n```",
    f"```python\n{_F}\n```\n\nUsage:\n\n```python\nprint(f(1))\n```",
    f"```python\n{_F}\n```\n\nOutput:\n\n```\n2\n```",
    f"```python\n{_F}\n```\n\nTests:\n\n```python\nassert f(1) == 3\n```",
    "```python\ndef f(x):\n    return x\n```\n\nThat is wrong. The corrected version:\n\n" + f"```python\n{_F}\n```",
    f"```python\n{_F}\n```\n\nAlternatively, a one-liner:\n\n```python\nf = lambda x: x + 1\n```",
    "```python\nf = lambda x: x + 1\n```",
    "```python\ndef helper(x):\n    return x + 1\n```\n\n```python\ndef f(x):\n    return helper(x)\n```",
    f"<think>\n```python\ndef f(x): return 0\n```\n</think>\n```python\n{_F}\n```",
    f"<think>I need def f(x).</think>\n{_F}",
    'def f(x):\n    s = "```"\n    return x + 1',
    '```python\ndef f(x):\n    s = "```"\n    return x + 1\n```',
    '```python\ndef f(x):\n    """Adds one.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n```',
    ">>> def f(x):\n...     return x + 1",
    "```pycon\n>>> def f(x):\n...     return x + 1\n```",
    f"python\n{_F}",
    "The function is `def f(x): return x + 1`.",
    "from math import floor\n\n\ndef f(x):\n    return floor(x) + 1\n",
    f"class Helper:\n    pass\n\n\n{_F}\n",
    f"```python\n{_F}\n```\n```python\n{_F}\n```",
    f"**Solution**\n\n```python\n{_F}\n```\n\n**Explanation**\n\n- adds one",
    'def f(x: int) -> int:\n    """Adds one."""\n    return x + 1\n\nNote that x must be a number.',
    "async def g():\n    pass\n\n\ndef f(x):\n    return x + 1",
    "```python\ndef f(x):\n\treturn x + 1\n```",
    f"{_F}\n\n# Test the function\nprint(f(2))  # Output: 3\n```\n\nThis function adds one.",
)
"""Each defines f, which adds one."""

NO_PROGRAM = ("", "I can't write that.", "<think>def f(x): return x + 1", "```bash\nls\n```")
"""None of these defines f."""

BODIES: tuple[str, ...] = (
    "    return x + 1\n",
    "\n    return x + 1\n",
    "    y = x\n    return y + 1\n\n\nThis adds one.",
    "```python\n    return x + 1\n```",
    "```python\nreturn x + 1\n```",
    "```python\ndef f(x):\n    return x + 1\n```",
    "The rest is:\n```python\ndef f(x):\n    return x + 1\n```",
    "def f(x):\n    return x + 1",
)
"""Each completes `def f(x):` with its docstring, alone or anew."""

_ANA = '{"name": "Ana", "age": 31}'

OBJECTS: tuple[tuple[str, str | None], ...] = (
    (_ANA, _ANA),
    (f"```json\n{_ANA}\n```", _ANA),
    (f"Here is the JSON:\n\n{_ANA}\n\nLet me know!", _ANA),
    (f"See [1]. {_ANA}", _ANA),
    (f"Items [1] and [2]: {_ANA}", _ANA),
    (f"[]{_ANA}", _ANA),
    (f'{{"note": "as asked"}} {_ANA}', _ANA),
    (f'The input was {{"text": "x"}}. The answer is {_ANA}.', _ANA),
    (f'<think>{{"name": "Bo", "age": 3}}</think>{_ANA}', _ANA),
    (f"<think>{_ANA}", None),
    (f"[{_ANA}]", _ANA),
    (f'Format: {{"name": "", "age": 0}}\nAnswer: {_ANA}', _ANA),
    (f'{_ANA}\n\nFor example, {{"name": "Bo", "age": 3}} would be another.', _ANA),
    ('{"name": "Bo", "age": 3}\nCorrected:\n' + _ANA, _ANA),
    ('{\n  "name": "Ana",\n  "age": 31\n}', '{\n  "name": "Ana",\n  "age": 31\n}'),
    ('{"age": 31.0, "name": "Ana"}', '{"age": 31.0, "name": "Ana"}'),
    ('{"name": "Ana"}', '{"name": "Ana"}'),
    ('{"name": "A{n}a", "age": 31}', '{"name": "A{n}a", "age": 31}'),
    ('{"name": "Ana", "age": ' + "3" * 5000 + "}", None),
    ('{"name": "Ana", "age": NaN}', None),
    ('{"name": "Ana", "age": 31', None),
    ("{'name': 'Ana', 'age': 31}", None),
    ('{"name": "Ana", "age": 31,}', None),
    ("Ana is 31.", None),
    ("[" * 3000, None),
    ("{}", "{}"),
)
"""(output, the text of the object that is read) where {"name": ..., "age": ...} is wanted."""
