"""The ranges of arguments, declared in their annotations, such as ``rate: PositiveFloat``.

An annotation is read in three places: the schema of a configuration compares values with it, the help shows
it, and a constructor that is ``@checked`` refuses what does not fit when it is called from Python.
"""

import contextlib
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf

from metagen.errors import UsageError, nearest

MANY = 1_000_000_000
"""More steps, episodes or images than anything here is asked for."""
WIDE = 65_536
"""More channels or features than a layer has here; what fits into the memory is asked beside it."""
LARGEST = 1e9
"""Of a weight, a rate or a deviation: float32 has room for some squares of it."""

PositiveInt = Annotated[int, Ge(1), Le(MANY)]
NonNegativeInt = Annotated[int, Ge(0), Le(MANY)]
Turns = Annotated[int, Ge(1), Le(1000)]
"""Of a loop that runs within every step or for every image: more of them would seem to hang."""
AdaptationSteps = Annotated[int, Ge(0), Le(100_000)]
Width = Annotated[int, Ge(1), Le(WIDE)]
Side = Annotated[int, Ge(1), Le(1024)]
SideBy4 = Annotated[int, Ge(4), Le(1024), MultipleOf(4)]
Colours = Literal[1, 3]
Channels = Annotated[int, Ge(1), Le(1024)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
PositiveFloat = Annotated[float, Gt(0), Le(LARGEST)]
NonNegativeFloat = Annotated[float, Ge(0), Le(LARGEST)]
Finite = Annotated[float, Ge(-LARGEST), Le(LARGEST)]
Probability = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
Text = Annotated[str, MinLen(1)]

P = ParamSpec("P")
R = TypeVar("R")
Judged = Callable[[Any, Any], bool]


class Bounds(typing.NamedTuple):
    """What an annotation says of a number: the least, the largest, and of what it is a multiple.

    ``open_low`` and ``open_high`` tell whether the bound itself is out of range.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    step: int | None = None

    def hold(self, value: float) -> bool:
        """Return whether a number lies within."""
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        if self.high is not None and (value > self.high or (self.open_high and value == self.high)):
            return False
        return self.step is None or value % self.step == 0

    def describe(self) -> str:
        """Return them in words: ``of 1 or more``."""
        low, high = _spelled(self.low), _spelled(self.high)
        if self.low is not None and self.high is not None:
            start = f" above {low} up to" if self.open_low else f" from {low} to"
            said = f"{start} below {high}" if self.open_high else f"{start} {high}"
        elif self.low is not None:
            said = f" above {low}" if self.open_low else f" of {low} or more"
        elif self.high is not None:
            said = f" below {high}" if self.open_high else f" of {high} or less"
        else:
            said = ""
        return said + (f", a multiple of {self.step}" if self.step else "")


def bounds(constraints: Iterable[Any]) -> Bounds:
    """Return the bounds that the constraints of an annotation make together."""
    found: dict[str, Any] = {}
    for one in _flat(constraints):
        match one:
            case Ge(ge=low):
                found |= {"low": low, "open_low": False}
            case Gt(gt=low):
                found |= {"low": low, "open_low": True}
            case Le(le=high):
                found |= {"high": high, "open_high": False}
            case Lt(lt=high):
                found |= {"high": high, "open_high": True}
            case MultipleOf(multiple_of=step):
                found["step"] = step
    return Bounds(**found)


def lengths(constraints: Iterable[Any]) -> tuple[int, float]:
    """Return the least and the largest length that constraints allow."""
    least, most = 0, math.inf
    for one in _flat(constraints):
        least = one.min_length if isinstance(one, MinLen) else least
        most = one.max_length if isinstance(one, MaxLen) else most
    return least, most


def _flat(constraints: Iterable[Any]) -> Iterator[Any]:
    for one in constraints:
        if isinstance(one, Interval) or hasattr(one, "__iter__"):
            yield from one
        else:
            yield one


def parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without its constraints, and them."""
    if typing.get_origin(hint) is Annotated:
        inner, *constraints = typing.get_args(hint)
        return inner, tuple(constraints)
    return hint, ()


def fits(value: Any, hint: Any, other: Judged = lambda value, hint: True) -> bool:
    """Return whether ``value`` is what the annotation ``hint`` says.

    A float is finite, whatever is declared; true and false are no numbers.

    Args:
        value: a number, a word, a list or a mapping of them, or an object.
        hint: of a parameter; None is the type of None.
        other: what to say of an annotation that is neither of plain values nor a list of them.
    """
    hint, constraints = parts(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg, other) for arg in args)
    if origin is Literal:
        return any(value == arg and isinstance(value, bool) == isinstance(arg, bool) for arg in args)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return (
            _is_list(value) and len(value) == len(args)
            and all(fits(item, arg, other) for item, arg in zip(value, args, strict=True))
        )  # fmt: skip
    if origin is Iterable and isinstance(value, Iterator):
        return True  # to look at its items would use them up
    if origin in (list, tuple, Sequence, Iterable):
        least, most = lengths(constraints)
        return (
            _is_list(value) and least <= len(value) <= most
            and all(fits(item, args[0] if args else Any, other) for item in value)
        )  # fmt: skip
    if origin is Mapping and isinstance(value, Mapping):
        return all(fits(item, args[1], other) for item in value.values())
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and bounds(constraints).hold(value)
    if hint is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return whole and bounds(constraints).hold(value)
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        least, most = lengths(constraints)
        return isinstance(value, str | PathLike) and least <= len(str(value)) <= most
    return other(value, hint)


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


def describe(hint: Any) -> str:
    """Return an annotation in words: ``a whole number of 1 or more``."""
    hint, constraints = parts(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return "a finite number, a word, a list or keys"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(arg) for arg in args))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple and args and args[-1] is not Ellipsis:
        same = "each " if len(set(args)) == 1 else ""
        return f"a list of {len(args)}, {same}{'; '.join(dict.fromkeys(describe(arg) for arg in args))}"
    if origin in (list, tuple, Sequence, Iterable):
        least, _ = lengths(constraints)
        some = f"a list of {least} or more" if least else "a list"
        return f"{some}, each {describe(args[0])}" if args and args[0] is not Any else some
    if origin is Mapping:
        return f"keys, each {describe(args[1])}"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        dict: "a node with a _target_",
        type(None): "null",
        None: "null",
    }
    name = names.get(hint) or f"a node with a _target_ that makes a {getattr(hint, '__name__', hint)}"
    return name + (bounds(constraints).describe() if hint in (int, float) else "")


def range_of(hint: Any) -> str:
    """Return the range of the numbers of an annotation, or its words, in short: ``0 to below 1``."""
    hint, constraints = parts(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(str(arg) for arg in args)
    if hint in (int, float):
        within = bounds(constraints)
        if within.high in (MANY, LARGEST):
            within = within._replace(high=None)
        return within.describe().removeprefix(" of").removeprefix(" from").strip()
    if origin in (typing.Union, types.UnionType, list, tuple, Sequence):
        found = [said for arg in args if (said := range_of(arg))]
        each = "each " if found and origin in (list, tuple, Sequence) else ""
        return each + " or ".join(dict.fromkeys(found))
    return ""


def _spelled(bound: float | None) -> str:
    """Return a bound as one would write it: 2^32 rather than its ten digits."""
    if bound is None:
        return ""
    if abs(bound) >= 2**31 and math.log2(abs(bound)).is_integer():
        return f"2^{int(math.log2(bound))}"
    return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"


def words_of(hint: Any) -> list[str]:
    """Return the words that an annotation lists, at any depth of unions."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return [arg for arg in args if isinstance(arg, str)]
    return [word for arg in args for word in words_of(arg)]


def refusal(name: str, value: Any, hint: Any, sign: str = "=") -> UsageError:
    """Return the error of a value that does not fit: the name, what came, and what was expected."""
    close = nearest(str(value), words_of(hint))
    return UsageError(f"{name}{sign}{shown(value)}: expected {describe(hint)}{close}")


def shown(value: Any) -> str:
    """Return a value as the command line spells it, cut where it is long; a text like ``'1'`` is quoted."""
    if isinstance(value, str) and _needs_quotes(value):
        return f"'{value}'"
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _needs_quotes(text: str) -> bool:
    """Return whether a text looks like a number, a truth or null, as where these were quoted."""
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return text.lower() in ("true", "false", "null", "none")


def checked(init: Callable[P, R]) -> Callable[P, R]:
    """Let a constructor refuse arguments that do not fit their annotations.

    >>> class Box:
    ...     @checked
    ...     def __init__(self, side: PositiveInt) -> None:
    ...         self.side = side
    >>> Box(0)
    Traceback (most recent call last):
    metagen.errors.UsageError: Box: side=0: expected a whole number from 1 to 1,000,000,000
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        known = hints(init)
        for name, value in bound.arguments.items():
            if name in known and not fits(value, known[name], _may_be):
                raise refusal(f"{type(args[0]).__name__}: {name}", value, known[name])
        return init(*args, **kwargs)

    return wrapper


def _may_be(value: Any, hint: Any) -> bool:
    """Return whether a value may be of a class: a number or a word is of none but its own."""
    plain = isinstance(value, bool | int | float | str)
    if hint is Any:
        return True
    return not (plain and inspect.isclass(hint)) or isinstance(value, hint)


def check_node(node: Mapping[str, Any], declared: Mapping[str, Any], where: str) -> None:
    """Refuse values that do not fit what is declared of them.

    Raises:
        UsageError: there is one.
    """
    for key, value in node.items():
        if key in declared and not fits(value, declared[key], _may_be):
            raise refusal(f"{where}.{key}", value, declared[key])


@functools.cache
def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function with their constraints, but those that cannot be read."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        found = getattr(function, "__annotations__", {})
        return {name: hint for name, hint in found.items() if not isinstance(hint, str)}
