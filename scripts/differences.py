"""What mypyc would compile without a word into something else than Python does, told by the text of a module.

Not told, because it is seen only in what runs; none of the modules that are compiled relies on it:

- an argument of another type is refused where it is passed, and one of a narrower type loses it: a ``bool`` or a member of an
  IntEnum that is passed as ``int`` or meets one (``a or True``), an ``int`` as ``float``, a NamedTuple as a tuple of so many;
- a slice of bytes that ends before it begins (``data[2:1]``) is a SystemError;
- the cause of an exception (``raise ... from``) is lost, its context is not, and ``from None`` hides nothing;
- a generator expression is made whole before its first value is taken;
- a StopIteration that comes out of what a coroutine or generator calls ends it as if it had returned;
- a coroutine that is thrown away half-way does not run its ``finally``, and nobody is warned of one that is never awaited;
- a loop gives no other thread a turn until it calls something that is not compiled.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Final

HARMLESS: Final = frozenset({"Protocol", "Generic", "Enum", "StrEnum", "IntEnum"})
"""Fields of classes made from these stay what they are."""


def objections(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and reason of what mypyc cannot compile in the text of a module, or would compile without a word and wrongly."""
    for node in ast.walk(ast.parse(text)):
        if reason := objection(node) or ambiguity(node) or keepsake(node) or ending(node):
            yield getattr(node, "lineno", 1), reason


def objection(node: ast.AST) -> str:
    """Return what is against a part of a module; empty if nothing is."""
    match node:
        case ast.ClassDef():
            return of_class(node)
        case ast.FunctionDef(name="__next__"):
            return "__next__: the end of whole numbers would end the process"
        case ast.FunctionDef(name="__contains__"):
            return "__contains__: in would ask its left side"
        case ast.AsyncFunctionDef(name=name) if any(map(is_yield, own(node))):
            return f"{name} is an async generator"
        case ast.Try(finalbody=last) if any(map(is_wait, within(last))):
            return "an await in a finally: its exception stays the present one, and is raised again by the next"
        case ast.Try(handlers=caught, finalbody=last) if any(
            map(is_yield, within([*caught, *last]))
        ):
            return "a yield in an except or a finally: its exception becomes the present one of whoever asks for more"
        case ast.MatchStar():
            return "a star in a pattern: what is no list would be a TypeError"
        case ast.For(iter=ast.Call(func=ast.Name(id="range"), args=args)) if changed(
            args, node.body
        ):
            return "a range whose end is changed in its loop: the loop would see that"
        case ast.Attribute(attr="_thread", ctx=ast.Store()):
            return "a field named _thread, which is a word of C"
        case ast.AnnAssign(target=ast.Name(id="_thread")):
            return "a field named _thread, which is a word of C"
        case _:
            return ""


def of_class(node: ast.ClassDef) -> str:
    """Return what is against a class; empty if nothing is."""
    name, made_from, has = node.name, bases(node), methods(node)
    if "Struct" in made_from:
        return f"{name} is a msgspec.Struct, whose keywords (frozen=True) would be lost"
    if "NamedTuple" in made_from:
        return f"{name} is a NamedTuple"
    if {word.arg for word in node.keywords} - {"metaclass"}:
        return f"the keywords of class {name} would be lost"
    if made_from - HARMLESS and any(map(is_field, node.body)):
        return f"fields of class {name} itself would be lost if it is an exception: set them in __init__"
    if not made_from & HARMLESS and any(map(is_shared, node.body)):
        return f"a field of class {name} that all share would be each one's own: make it a ClassVar"
    if "__len__" in has and "__bool__" not in has:
        return (
            f"{name} has a length and no __bool__: where it may be None too it would always be true"
        )
    return ""


def ambiguity(node: ast.AST) -> str:
    """Return what is against a function one of whose names is given to exceptions of two types; empty if none is."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    types: dict[str, str] = {}
    for part in own(node):
        match part:
            case ast.ExceptHandler(type=ast.expr() as caught, name=str(name)):
                text = ast.unparse(caught)
                if types.setdefault(name, text) != text:
                    return f"{name} is {types[name]} and {text} in {node.name}: the second would be a TypeError"
            case _:
                pass
    return ""


def keepsake(node: ast.AST) -> str:
    """Return what is against a coroutine that lets go of a name; empty if it does not, or is none."""
    lets_go = isinstance(node, ast.AsyncFunctionDef) and any(
        isinstance(target, ast.Name)
        for part in own(node)
        if isinstance(part, ast.Delete)
        for target in part.targets
    )
    return (
        "a del in a coroutine: what it was unpacked from is kept while it waits" if lets_go else ""
    )


def ending(node: ast.AST) -> str:
    """Return what is against a coroutine or generator that may end by a StopIteration; empty if nothing is."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    parts = list(own(node))
    if isinstance(node, ast.FunctionDef) and not any(map(is_yield, parts)):
        return ""
    if any(map(is_bare_next, parts)):
        return f"next() without a default in {node.name}: at the end it would return None instead of failing"
    if any(map(is_stop, parts)):
        return f"a StopIteration in {node.name}: it would return instead of failing"
    return ""


def methods(node: ast.ClassDef) -> set[str]:
    """Return the names of what a class itself defines as functions."""
    return {part.name for part in node.body if isinstance(part, ast.FunctionDef)}


def changed(read: Sequence[ast.expr], body: Sequence[ast.stmt]) -> bool:
    """Tell whether a loop gives another value to one of the names that are read."""
    names = {part.id for one in read for part in ast.walk(one) if isinstance(part, ast.Name)}
    parts = (part for one in body for part in ast.walk(one) if isinstance(part, ast.Name))
    return any(part.id in names and isinstance(part.ctx, ast.Store) for part in parts)


def bases(node: ast.ClassDef) -> set[str]:
    """Return the last words of what a class is made from."""
    return {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}


def is_field(node: ast.stmt) -> bool:
    """Tell whether a statement of a class gives it a field with a value."""
    match node:
        case ast.AnnAssign(value=None):
            return False
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return not name.startswith("__")
        case _:
            return False


def is_shared(node: ast.stmt) -> bool:
    """Tell whether a statement of a class gives it a field whose value can change."""
    match node:
        case ast.AnnAssign(annotation=kind) if "ClassVar" in ast.unparse(kind):
            return False
        case ast.Assign(value=ast.expr() as value) | ast.AnnAssign(value=ast.expr() as value):
            made = (
                ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp | ast.Call
            )
            return isinstance(value, made)
        case _:
            return False


def is_bare_next(node: ast.AST) -> bool:
    """Tell whether a part of a function asks an iterator for more without saying what if there is none."""
    match node:
        case ast.Call(func=ast.Name(id="next"), args=[_]):
            return True
        case _:
            return False


def is_stop(node: ast.AST) -> bool:
    """Tell whether a part of a function raises StopIteration."""
    match node:
        case ast.Raise(
            exc=ast.Name(id="StopIteration") | ast.Call(func=ast.Name(id="StopIteration"))
        ):
            return True
        case _:
            return False


def is_wait(node: ast.AST) -> bool:
    """Tell whether a part of a function may wait."""
    comprehends = isinstance(node, ast.comprehension) and bool(node.is_async)
    return comprehends or isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor)


def is_yield(node: ast.AST) -> bool:
    """Tell whether a part of a function makes it a generator."""
    return isinstance(node, ast.Yield | ast.YieldFrom)


def within(parts: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield some parts of a function and all in them, without those of functions within it."""
    return (node for part in parts for node in (part, *own(part)))


def own(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a function without those of functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from own(child)
