"""Configs: reading YAML, checking and converting values, and the registry that turns specs into objects."""

import contextlib
import copy
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence

import yaml

from errors import UserError, located, one_line, quoted, unknown

Node = typing.TypeVar('Node')
LARGEST_FILE, LONGEST = 1 << 20, 3000  # limits for a config: bytes, and characters of one value
MOST_VALUES, DEEPEST = 100_000, 50  # limits for a config, or a checkpoint's spec


class YAMLLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that duplicate keys and excessive content are errors."""

    def check_printable(self, data):
        super().check_printable(re.sub('[\udc80-\udcff]', '', data))  # bytes of a file's name that is no UTF-8

    def construct_document(self, node):
        check_extent(node, yaml_children)
        return super().construct_document(node)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != 'tag:yaml.org,2002:merge':
                key = self.construct_object(key_node)
                if key in seen:
                    raise UserError(f'key {quoted(key)} is given twice, the second time in line '
                                    f'{key_node.start_mark.line + 1}')
                seen.add(key)
        return super().construct_mapping(node, deep)


def yaml_children(node: yaml.Node) -> list[yaml.Node]:
    """The nodes in a YAML `node`; a scalar has none; UserError if it is too long."""
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > LONGEST:
            raise UserError(f'line {node.start_mark.line + 1} has a text of {len(node.value)} characters, but at most '
                            f'{LONGEST} are allowed')
        return []
    return [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value


def parse_yaml(content: bytes, errors: str = 'strict') -> typing.Any:
    """What `content` holds, as UTF-8; UserError if it is not valid YAML. `errors`: what is done with other bytes."""
    try:
        return yaml.load(content.decode(errors=errors), YAMLLoader)
    except UserError:
        raise
    except Exception as error:  # YAMLError, and whatever a bad number, date or nesting raises
        raise UserError(f'is not valid YAML ({one_line(error):.300})') from None


def load_yaml(path: str | os.PathLike, assignments: Sequence[str] = ()) -> dict:
    """The mapping in the YAML file at `path`, changed by `assignments`, the arguments of `--set` (`set_key`)."""
    try:
        with open(path, 'rb') as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    if len(content) > LARGEST_FILE:
        raise UserError(f'{path}: is not a config: it has more than {LARGEST_FILE:,} bytes')
    with located(path):
        config = parse_yaml(content)
        if not isinstance(config, dict):
            raise UserError('holds no keys')
    for assignment in assignments:
        set_key(config, assignment)
    return config


def set_key(config: dict, assignment: str) -> None:
    """Sets a key of a config to the argument of `--set`: 'optimizer.args.lr=1e-5'; the value is read as YAML.

    The items of a list are counted from 0: 'loss.1.weight=0.1'. A value that several keys share by YAML's anchors
    changes for this key only.
    """
    path, equals, text = assignment.partition('=')
    *parents, last = path.split('.')
    if not equals or not all((*parents, last)):
        raise UserError(f'--set takes KEY=VALUE, such as optimizer.args.lr=1e-5, not {assignment!r}')
    with located(f'--set {assignment}'):
        value = parse_yaml(os.fsencode(text), 'surrogateescape')
        for i, key in enumerate(parents):
            key, child = item(config, key, '.'.join(parents[:i]))
            config[key] = {} if child is None else copy.copy(child)
            config = config[key]
        config[item(config, last, '.'.join(parents))[0]] = value


def item(parent: typing.Any, key: str, path: str) -> tuple[str | int, typing.Any]:
    """The key, or in a list the index, that `key` means in `parent`, and its value, None if there is none.

    UserError, in which `parent` is called `path`, unless it is a dict, or a list with that index.
    """
    if isinstance(parent, list):
        if not key.isdecimal() or int(key) >= len(parent):
            raise UserError(f'{path} is a list, whose items are counted from 0 to {len(parent) - 1}, not {key}')
        return int(key), parent[int(key)]
    if not isinstance(parent, dict):
        raise UserError(f'{path} holds no keys')
    return key, parent.get(key)


def check_extent(root: Node, children: Callable[[Node], Iterable[Node]]) -> None:
    """Raises a UserError if `root` is too deep or too large, counting each node as often as it is referred to.

    `children` returns the nodes that a node refers to. Content that is small in a file but endless when it is
    traversed (aliases of aliases) is thus refused before anything traverses it.
    """
    nodes, count = [(root, 0)], 0
    while nodes:
        node, depth = nodes.pop()
        count += 1
        if count > MOST_VALUES:
            raise UserError(f'holds more than {MOST_VALUES:,} values, aliases counted as often as they are used')
        if depth > DEEPEST:
            raise UserError(f'is nested more than {DEEPEST} levels deep')
        nodes += [(child, depth + 1) for child in children(node)]


def convert(value: typing.Any, annotation: typing.Any, key: str) -> typing.Any:
    """`value` converted to the type `annotation`; numbers that YAML reads as text (1e-4) become numbers."""
    unions = types.UnionType, typing.Union
    options = typing.get_args(annotation) if typing.get_origin(annotation) in unions else (annotation,)
    if value is None and types.NoneType in options:
        return None
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            if value in typing.get_args(option):
                return value
        elif option is bool or isinstance(value, bool):
            if option is bool and isinstance(value, bool):
                return value
        elif option is int and isinstance(value, int):
            return value
        elif option in (int, float):
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                number = float(value)
                if math.isinf(number):
                    raise UserError(f'{key} must be a finite number, not {quoted(value)}')
                if not math.isnan(number) and (option is float or number == int(number)):
                    return option(number)
        elif typing.get_origin(option) is list and isinstance(value, list):
            return [convert(v, *typing.get_args(option), f'{key}[{i}]') for i, v in enumerate(value)]
        elif option is typing.Any or isinstance(value, typing.get_origin(option) or option):
            return value
    names = ' or '.join(
        ' | '.join(map(repr, typing.get_args(o))) if typing.get_origin(o) is typing.Literal
        else 'null' if o is types.NoneType else getattr(o, '__name__', str(o)) for o in options)
    raise UserError(f'{key} must be {names}, not {quoted(value)}')


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of `function` by name; if the __init__ of a class takes `**rest`, also those of its base class."""
    found = inspect.signature(function, eval_str=True).parameters
    base = getattr(function, '__base__', None)
    if any(p.kind is p.VAR_KEYWORD for p in found.values()) and inspect.isfunction(getattr(base, '__init__', None)):
        found = {**parameters(base), **found}
    return {k: p for k, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def check_args(function: Callable, args: dict) -> dict:
    """The dict `args` fitted to the signature of `function`; UserError for unknown or missing keys and wrong types."""
    if not isinstance(args, dict):
        raise UserError(f'arguments must be given as key: value, not {quoted(args)}')
    known = parameters(function)
    for key in args:
        if key not in known:
            raise unknown('key', key, known)
    missing = [k for k, p in known.items() if p.default is p.empty and k not in args]
    if missing:
        raise UserError(f'missing key {missing[0]!r}')
    hints = {k: p.annotation for k, p in known.items() if p.annotation is not p.empty}
    return {key: convert(value, hints[key], key) if key in hints else value for key, value in args.items()}


def check_positive(**values: float | None) -> None:
    """Raises a UserError for the first of `values` that is below 1; None is allowed."""
    for key, value in values.items():
        if value is not None and value < 1:
            raise UserError(f'{key} must be at least 1, not {quoted(value)}')


class Registry:
    """Classes by name, which turns a spec in a config, `{name: ..., args: {...}}`, into an object."""

    def __init__(self, kind: str):
        self.kind, self.classes = kind, {}

    def register(self, name: str) -> Callable[[Callable], Callable]:
        """A decorator that registers a class as `name`, which must be new."""
        def add(cls):
            known = self.classes.get(name, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # equal if reloaded
                raise UserError(f'{self.kind} {name!r} is registered already, by {known.__module__}')
            self.classes[name] = cls
            return cls
        return add

    def make(self, spec: dict, args: dict | None = None) -> typing.Any:
        """The object that `spec` describes; `args` are added to the spec's own arguments and override them."""
        name, own = (spec.get('name'), spec.get('args')) if isinstance(spec, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(own, dict | None):
            raise UserError(f'a {self.kind} must be given as name and args, not {quoted(spec)}')
        if name not in self.classes:
            raise UserError(f'{unknown(self.kind, name, self.classes)}; import one of your own with --import MODULE')
        with located(f'{self.kind} {name}'):
            for key in spec.keys() - {'name', 'args', 'sd'}:
                raise unknown('key', key, ('name', 'args'))
            return self.classes[name](**check_args(self.classes[name], {**(own or {}), **(args or {})}))
