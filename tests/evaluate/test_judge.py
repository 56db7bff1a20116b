"""Code cannot pass itself: programs that fake, programs that are right in every odd way, and what crosses between."""

import datetime
import decimal
import fractions
import math
from collections import Counter, OrderedDict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from qtool.evaluate import sandbox
from qtool.evaluate.sandbox import run, wire

WORKING = [name for name in run.USUAL_ORDER if run._problem(name) is None]
QUICK = sandbox.Limits(wall_seconds=20.0, cpu_seconds=2, memory_bytes=256 << 20)

pytestmark = pytest.mark.skipif(not WORKING, reason="this kernel allows none of the sandboxes")

WALK = """
import sys
frame = sys._getframe()
while frame:
    spaces = [frame.f_locals, frame.f_globals]
    for space in spaces:
        for key, value in list(space.items()):
            {action}
    frame = frame.f_back
"""
ALWAYS = """
class Always{base}:
    def yes(self, *others, **named): return True
    def me(self, *others): return self
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __instancecheck__ = yes
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __mul__ = __neg__ = __round__ = me
    def __hash__(self): return hash(3)
    def __len__(self): return 3
    @property
    def __class__(self): return int
def f(x): return Always()
"""
PATCH = "def f(x): return 0\nimport builtins, json, os, sys\n"
# (what it does, program, test): each would pass, or once did, if judge and program shared an interpreter or its trust
FAKES = [
    ("walks to the token and writes the verdict itself",
     WALK.format(action="import json, os\n            if isinstance(value, dict) and 'token' in value:\n"
                 "                os.write(3, json.dumps({'token': value['token'], 'kind': 'passed'}).encode())"
                 "\n                os._exit(0)") + "\ndef f(x): return 0", "assert f(2) == 3"),
    ("compile gives an empty program",
     PATCH + "old = compile\nbuiltins.compile = lambda *a, **k: old('pass', 'x', 'exec')", "assert f(2) == 3"),
    ("exec does nothing", PATCH + "builtins.exec = lambda *a, **k: None", "assert f(2) == 3"),
    ("clears the tests by walking frames",
     WALK.format(action="value.clear() if isinstance(value, list) else None") + "\ndef f(x): return 0",
     "assert f(2) == 3"),
    ("clears the tests through the collector",
     "import gc\nfor each in gc.get_objects():\n    if type(each) is list and 'assert' in str(each[:3]):\n"
     "        each.clear()\ndef f(x): return 0", "assert f(2) == 3"),
    ("os.write says passed",
     PATCH + "old = os.write\nos.write = lambda d, b: old(d, b.replace(b'assertion', b'passed'))", "assert f(2) == 3"),
    ("json.dumps says passed",
     PATCH + "old = json.dumps\ndef fake(o, **k):\n    if isinstance(o, dict): o['kind'] = 'passed'\n"
     "    return old(o)\njson.dumps = fake", "assert f(2) == 3"),
    ("reads the expected value out of a frame",
     "import re\ndef f(x):\n    import sys\n    frame = sys._getframe()\n    while frame:\n"
     "        found = re.search(r'f\\(2\\) == (\\d+)', str(frame.f_locals) + str(frame.f_globals))\n"
     "        if found: return int(found[1])\n        frame = frame.f_back", "assert f(2) == 3"),
    ("equal to anything", ALWAYS.format(base=""), "assert f(2) == 3"),
    ("ends its process", "import os\ndef f(x): os._exit(0)", "assert f(2) == 3"),
    ("ends its process at once", "import os\nos._exit(0)", "assert f(2) == 3"),
    ("exits", "import sys\ndef f(x): sys.exit(0)", "assert f(2) == 3"),
    ("prints a verdict", "print('{\"kind\": \"passed\"}', flush=True)\ndef f(x): return 0", "assert f(2) == 3"),
    ("shadows AssertionError", PATCH + "builtins.AssertionError = SystemExit\nAssertionError = SystemExit",
     "assert f(2) == 3"),
    ("traces", "import sys\nsys.settrace(lambda *a: None)\ndef f(x): return 0", "assert f(2) == 3"),
    ("profiles every call", "import sys\nsys.setprofile(lambda *a: sys.setprofile(None))\ndef f(x): return 0",
     "assert f(2) == 3"),
    ("writes verdicts to every descriptor",
     "import os\nfor n in range(3, 32):\n    try: os.write(n, b'{\"kind\": \"passed\", \"detail\": \"\"}\\n')\n"
     "    except OSError: pass\ndef f(x): return 0", "assert f(2) == 3"),
    # and beyond the seventeen
    ("an int that equals anything", ALWAYS.format(base="(int)"), "assert f(2) == 3"),
    ("a float that equals anything", ALWAYS.format(base="(float)"), "assert f(2) == 3.5"),
    ("a list that equals anything", ALWAYS.format(base="(list)"), "assert f(2) == [3]"),
    ("a string that equals anything", ALWAYS.format(base="(str)"), "assert f(2) == 'three'"),
    ("its difference is always small", ALWAYS.format(base=""), "assert abs(f(2) - 3) < 1e-6"),
    ("its difference is nothing", "class D:\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\n"
     "def f(x): return D()", "assert abs(3 - f(2)) < 1e-6"),
    ("it is in every order", ALWAYS.format(base=""), "assert 2 < f(2) < 4"),
    ("it contains anything", ALWAYS.format(base=""), "assert 3 in f(2)"),
    ("it is a member of anything", ALWAYS.format(base=""), "assert f(2) in [1, 3]"),
    ("it is found as a key", ALWAYS.format(base=""), "assert {3: True}[f(2)]"),
    ("it claims the class of an int", ALWAYS.format(base=""), "assert isinstance(f(2), int)"),
    ("redefines len and set", "def len(x): return 3\ndef set(x): return 3\ndef f(x): return [1]",
     "assert len(f(2)) == 3 and set(f(2)) == set([3])"),
    ("redefines what a test imports from Python",
     "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(x): return 0",
     "import math\nassert math.isclose(f(2), 3.0)"),
    ("patches builtins", PATCH + "builtins.abs = lambda x: 0\nbuiltins.all = lambda x: True",
     "assert all(abs(f(n) - 3) < 1e-6 for n in (1, 2))"),
    ("patches a module that the tests use", "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0",
     "assert math.isclose(f(2), 3.0)"),
    ("stops the loop of the test", "def f(x): raise StopIteration", "for each in map(f, [2]):\n    assert each == 3"),
    ("empties the argument that the expected value is made of", "def f(xs):\n    xs.clear()\n    return []",
     "xs = [2, 1]\nassert f(xs) == sorted(xs)"),
    ("closes its channel", "import os\nos.closerange(0, 64)\ndef f(x): return 3", "assert f(2) == 3"),
    ("a child answers while it exits", "import os\nif os.fork():\n    os._exit(0)\ndef f(x): return 0",
     "assert f(2) == 3"),
    ("answers before it is asked",
     "import os\nfor n in range(3, 32):\n    try: os.write(n, b'{\"value\": 0}\\n' * 50)\n    except OSError: pass\n"
     "def f(x): return 0", "assert f(2) == 3"),
    ("swallowed by a bare except", "import os\ndef f(x): os._exit(0)", "try:\n    f(2)\nexcept:\n    pass"),
    ("pickles that would run", "class P:\n    def __reduce__(self): return (eval, ('3',))\ndef f(x): return P()",
     "assert f(2) == 3"),
    ("an endless nest", "def f(x):\n    a = []\n    a.append(a)\n    return a", "assert f(2) == [3]"),
    ("a flood of value", "def f(x): return 'x' * (64 << 20)", "assert f(2) == 3"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "test"), [pytest.param(*rest, id=name) for name, *rest in FAKES])
def test_a_fake_does_not_pass(program: str, test: str) -> None:
    found = sandbox.execute(program, [test], sandbox=WORKING[0], limits=QUICK)
    assert found.kind != "passed"
    assert "Traceback" not in found.detail


# programs that are right, with tests as they are written for one interpreter
RIGHT = [
    ("class C:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
     "    def __len__(self): return len(self.items)\n    def __eq__(self, o): return self.items == o.items",
     "c = C()\nc.push(3)\nassert len(c) == 1 and c.items == [3] and c\nd = C()\nassert c != d\nd.push(3)\n"
     "assert c == d and isinstance(c, C) and not isinstance(3, C)"),
    ("def f(n):\n    for i in range(n): yield i, str(i)",
     "assert list(f(2)) == [(0, '0'), (1, '1')]\nassert next(f(1)) == (0, '0') and (1, '1') in f(5)"),
    ("def f(k): return lambda x: x + k", "assert f(2)(3) == 5"),
    ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x * 2, [1, 2]) == [2, 4]"),
    ("def f(xs): xs.sort()", "xs = [3, 1]\nassert f(xs) is None and xs == [1, 3]"),
    ("def f(d): d['a'] = {1: (2,)}", "d = {}\nf(d)\nassert d == {'a': {1: (2,)}}"),
    ("class E(ValueError): pass\ndef f(x): raise E('bad', x)",
     "try:\n    f(3)\n    assert False\nexcept E as error:\n    assert error.args == ('bad', 3)\n"
     "try:\n    f(3)\nexcept ValueError:\n    pass"),
    ("def f(x): return {}[x]",
     "try:\n    f('k')\n    assert False\nexcept KeyError as error:\n    assert str(error) == \"'k'\""),
    ("count = 0\ndef f():\n    global count\n    count += 1", "assert count == 0\nf()\nassert count == 1"),
    ("import math as m\ndef f(x): return m.sqrt(x)", "assert m.isclose(f(4), 2.0)"),
    ("def sum(a, b): return a + b", "assert sum(1, 2) == 3"),
    ("async def f(x): return x + 1", "import asyncio\nassert asyncio.run(f(1)) == 2"),
    ("from collections import Counter, namedtuple\nP = namedtuple('P', 'x y')\ndef f(s): return Counter(s)\n"
     "def g(): return P(1, 2)", "assert f('aab') == {'a': 2, 'b': 1} and g() == (1, 2)"),
    ("def f(node): return node.value + (f(node.next) if node.next else 0)\nclass Node: pass",
     "class Node:\n    def __init__(self, value, next=None): self.value, self.next = value, next\n"
     "assert f(Node(1, Node(2))) == 3"),
    ("import enum\nclass Color(enum.Enum):\n    RED = 1\ndef f(): return Color.RED",
     "assert f() == Color.RED and f().name == 'RED' and f() is not None"),
    ("print('noise')\nprint(input) if False else None\ndef f(x):\n    print(x)\n    return x", "assert f(1) == 1"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "test"), RIGHT, ids=range(len(RIGHT)))
def test_a_right_program_passes_through_the_channel(program: str, test: str) -> None:
    known = sandbox.Known(reference=program)
    assert sandbox.execute(program, [test], sandbox=WORKING[0], limits=QUICK, known=known) == sandbox.Outcome(
        "passed", ""
    )


def test_helpers_of_the_given_beginning_are_the_tests_own() -> None:
    prelude = "import math\ndef double(x):\n    return 2 * x\ndef f(x):\n    '''Half of x.'''\n"
    known = sandbox.Known(prelude=prelude, reference=prelude + "    return x / 2\n")
    test = "assert math.fabs(double(f(3)) - 3) < 1e-9"
    right = prelude + "    return x / 2\n"
    fake = right.replace("x / 2", "0") + "def double(x): return 3\n"
    assert sandbox.execute(right, [test], sandbox=WORKING[0], limits=QUICK, known=known).kind == "passed"
    assert sandbox.execute(fake, [test], sandbox=WORKING[0], limits=QUICK, known=known).kind == "assertion"


def test_a_test_that_needs_one_interpreter_says_so() -> None:
    program = "class V:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return V(self.x + int(o))"
    found = sandbox.execute(program, ["assert (V(1) + 2).x == 3"], sandbox=WORKING[0], limits=QUICK)
    assert found.kind == "exception"
    assert found.detail.startswith("live object: ")


def refused(value: object) -> object:
    raise AssertionError(f"{value!r} is plain")


plain = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text() | some.binary()
    | some.decimals(allow_nan=False) | some.fractions() | some.datetimes() | some.dates() | some.timedeltas()
    | some.complex_numbers(allow_nan=False),
    lambda inner: some.lists(inner, max_size=4) | some.tuples(inner, inner)
    | some.dictionaries(some.text() | some.integers() | some.tuples(some.integers()), inner, max_size=4)
    | some.sets(some.integers() | some.text(), max_size=4) | some.frozensets(some.integers(), max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(plain)
def test_a_plain_value_crosses_as_itself(value: object) -> None:
    import json

    back = wire.unpack(json.loads(json.dumps(wire.pack(value, refused))), refused)
    assert back == value
    assert type(back) is type(value)


def test_what_json_has_no_word_for_crosses_too() -> None:
    for value in (10**5000, -(2**64), float("inf"), -0.0, deque([1], maxlen=None), bytearray(b"x"), range(1, 9, 2), ...,
                  "\ud800", decimal.Decimal("1.10"), fractions.Fraction(1, 3), datetime.time(1, 2)):  # fmt: skip
        back = wire.unpack(wire.pack(value, refused), refused)
        assert back == value
        assert type(back) is type(value)
    assert math.isnan(wire.unpack(wire.pack(float("nan"), refused), refused))
    assert math.copysign(1, wire.unpack(wire.pack(-0.0, refused), refused)) == -1
    assert wire.unpack(wire.pack(Counter("aa"), refused), refused) == {"a": 2}
    assert type(wire.unpack(wire.pack(OrderedDict(a=1), refused), refused)) is dict
