"""What models, datasets, training and evaluation share: errors, registry, coordinates, metrics, output.

The functions that LIIF users call keep their names and meaning: `make_coord`, `to_pixel_samples`,
`calc_psnr`.
"""

import contextlib
import difflib
import inspect
import io
import json
import math
import os
import re
import reprlib
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
import yaml

# --- errors ----------------------------------------------------------------------------------------


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and what is allowed."""


@contextlib.contextmanager
def located(where: str | os.PathLike) -> Iterator[None]:
    """Puts `where` (a file, a key, a model's name) in front of any UserError raised inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{where}: {error}') from None


def run_cli(main: Callable[[], None]) -> None:
    """Runs `main`; a UserError, or what amounts to one, ends it with one line on stderr and exit code 2.

    Ctrl-C ends it with one line and exit code 130. Names of files that no encoding fits are printed with escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        main()
    except UserError as error:
        # An error from a data worker arrives wrapped in the worker's traceback; its last line is the error's own.
        message = str(error).strip().splitlines()[-1].removeprefix('utils.UserError: ')
    except torch.OutOfMemoryError:
        message = ('out of GPU memory: lower batch_size or sample_q to train, eval_bsize to validate samples, TILE in '
                   'models/predict.py to make whole images, or use more GPUs')
    except RuntimeError as error:  # a worker's, in the words of PyTorch
        if not re.search(r'shared memory|unable to (write to|open|mmap|resize) .*torch_', str(error)):
            raise
        message = ('shared memory is full (/dev/shm, 64 MB in Docker unless --shm-size says more): set num_workers: 0 '
                   'in the config')
    except OSError as error:  # what cannot be read is a UserError already
        if error.filename is None:
            raise
        message = f'{error.filename}: cannot be written ({error.strerror}); free space, or write elsewhere'
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not disturb the end of the first
        print('interrupted', file=sys.stderr)
        sys.exit(130)  # as shells have it: 128 + SIGINT
    else:
        return
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


class Short(reprlib.Repr):
    """Python's `repr` in one line, of deep, wide and cyclic values their beginnings alone."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 3, 4, 4, 4, 4
        self.maxstring, self.maxother = 80, 80

    def repr1(self, x: typing.Any, level: int) -> str:
        if isinstance(x, dict):
            return self.repr_dict(x, level)  # of subclasses, too, whose own would be endless
        try:
            return one_line(super().repr1(x, level))
        except ValueError:  # a whole number with more digits than Python writes
            return f'a number of {x.bit_length()} bits'


def shown(value: typing.Any) -> str:
    """`value`, whatever it is, as an error message quotes it."""
    text = Short().repr(value)
    return text if len(text) <= 300 else f'{text[:200]}...{text[-80:]}'


def one_line(text: typing.Any) -> str:
    """`text` with its lines joined to one, or what it is an instance of where it is empty."""
    return ' '.join(str(text).split()) or type(text).__name__


# --- configs and the registry ----------------------------------------------------------------------


Node = typing.TypeVar('Node')
LARGEST_FILE, LONGEST = 1 << 20, 3000  # of a config: bytes, and characters of one value
MOST_VALUES, DEEPEST = 100_000, 50  # of a config, or of a checkpoint's spec


class YAMLLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key given twice is an error, and so is more than a config can need."""

    def construct_document(self, node):
        check_extent(node, yaml_children)
        return super().construct_document(node)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != 'tag:yaml.org,2002:merge':
                key = self.construct_object(key_node)
                if key in seen:
                    raise UserError(f'key {shown(key)} is given twice, the second time in line '
                                    f'{key_node.start_mark.line + 1}')
                seen.add(key)
        return super().construct_mapping(node, deep)


def yaml_children(node: yaml.Node) -> list[yaml.Node]:
    """The nodes in a YAML `node`; a scalar has none, and may not be too long for an error to show it."""
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > LONGEST:
            raise UserError(f'line {node.start_mark.line + 1} has a text of {len(node.value)} characters, and a config '
                            f'may have {LONGEST}')
        return []
    return [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value


def load_yaml(path: str | os.PathLike) -> dict:
    """The mapping in the YAML file at `path`."""
    try:
        with open(path, 'rb') as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    if len(content) > LARGEST_FILE:
        raise UserError(f'{path}: is no config: it has more than {LARGEST_FILE:,} bytes')
    with located(path):
        try:
            config = yaml.load(content.decode(), YAMLLoader)
        except UserError:
            raise
        except Exception as error:  # beside YAMLError whatever a bad number, date or nesting leads to
            raise UserError(f'is not valid YAML ({one_line(error):.300})') from None
        if not isinstance(config, dict):
            raise UserError('holds no keys')
    return config


def set_key(config: dict, assignment: str) -> None:
    """Sets a key of a config as `--set` has it: 'optimizer.args.lr=1e-5'; the value is read as in YAML."""
    path, equals, text = assignment.partition('=')
    *parents, last = path.split('.')
    if not equals or not all((*parents, last)):
        raise UserError(f'--set takes KEY=VALUE, as optimizer.args.lr=1e-5, not {assignment!r}')
    try:
        value = yaml.load(text, YAMLLoader)
    except yaml.YAMLError as error:
        raise UserError(f'--set {assignment}: is not valid YAML ({" ".join(str(error).split())})') from None
    for i, key in enumerate(parents):
        if config.get(key) is None:
            config[key] = {}
        config = config[key]
        if not isinstance(config, dict):
            raise UserError(f'--set {assignment}: {".".join(parents[:i + 1])} holds no keys')
    config[last] = value


def check_extent(root: Node, children: Callable[[Node], Iterable[Node]]) -> None:
    """Raises a UserError unless `root` is shallow and small, all that it refers to counted as often as it does so.

    `children` gives what a node refers to. So what is small in a file (aliases of aliases) and endless to walk through
    is refused before anything does.
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


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the `known` ones."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f', did you mean {near[0]!r}?' if near else ''
    return UserError(f'unknown {what} {shown(name)}{hint} (known: {", ".join(sorted(known))})')


def convert(value: typing.Any, annotation: typing.Any, key: str) -> typing.Any:
    """`value` as the type that `annotation` asks for; numbers that YAML reads as text (1e-4) become numbers."""
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
                if not math.isnan(number) and (option is float or number == int(number)):
                    return option(number)
        elif typing.get_origin(option) is list and isinstance(value, list):
            return [convert(v, *typing.get_args(option), f'{key}[{i}]') for i, v in enumerate(value)]
        elif option is typing.Any or isinstance(value, typing.get_origin(option) or option):
            return value
    names = ' or '.join(
        ' | '.join(map(repr, typing.get_args(o))) if typing.get_origin(o) is typing.Literal
        else 'nothing' if o is types.NoneType else getattr(o, '__name__', str(o)) for o in options)
    raise UserError(f'{key} must be {names}, not {shown(value)}')


def check_args(function: Callable, args: dict) -> dict:
    """`args` (a dict) fitted to `function`'s signature: unknown and missing keys and wrong types are UserErrors."""
    if not isinstance(args, dict):
        raise UserError(f'arguments must be given as key: value, not {shown(args)}')
    parameters = {k: p for k, p in inspect.signature(function, eval_str=True).parameters.items()
                  if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}  # a class without __init__ shows those
    for key in args:
        if key not in parameters:
            raise unknown('key', key, parameters)
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in args]
    if missing:
        raise UserError(f'missing key {missing[0]!r}')
    hints = {k: p.annotation for k, p in parameters.items() if p.annotation is not p.empty}
    return {key: convert(value, hints[key], key) if key in hints else value for key, value in args.items()}


def check_positive(**values: float | None) -> None:
    """Raises a UserError for the first of `values` (None passes) that is below 1."""
    for key, value in values.items():
        if value is not None and value < 1:
            raise UserError(f'{key} must be at least 1, not {shown(value)}')


def check_norm(data_norm: dict | None) -> None:
    """Raises a UserError unless `data_norm` is None or {inp, gt: {sub, div: a list of one number or three}}."""
    def norm(sub: list[float], div: list[float]):
        if not {len(sub), len(div)} <= {1, 3} or 0 in div or not all(map(math.isfinite, sub + div)):
            raise UserError('sub and div must hold a number or one for each channel, in div not 0')

    if not isinstance(data_norm, dict | None):
        raise UserError(f'data_norm must hold inp and gt, not {shown(data_norm)}')
    for key, values in (data_norm or {}).items():
        if key not in ('inp', 'gt'):
            raise unknown('key', f'data_norm.{key}', ('data_norm.inp', 'data_norm.gt'))
        with located(f'data_norm.{key}'):
            norm(**check_args(norm, values))


class Registry:
    """Classes by name. A spec, `{name: ..., args: {...}}` in a config, is made into an object here."""

    def __init__(self, kind: str):
        self.kind, self.classes = kind, {}

    def register(self, name: str) -> Callable[[Callable], Callable]:
        """A decorator that makes a class known as `name`, which must be new."""
        def add(cls):
            known = self.classes.get(name, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):  # the same: it is reloaded
                raise UserError(f'{self.kind} {name!r} is registered already, by {known.__module__}')
            self.classes[name] = cls
            return cls
        return add

    def make(self, spec: dict, args: dict | None = None) -> typing.Any:
        """The object that `spec` describes; `args` add to the spec's own and win over them."""
        name, own = (spec.get('name'), spec.get('args') or {}) if isinstance(spec, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(own, dict):
            raise UserError(f'a {self.kind} is given as name and args, not {shown(spec)}')
        if name not in self.classes:
            raise UserError(f'{unknown(self.kind, name, self.classes)}; one of your own is known by --import MODULE')
        with located(f'{self.kind} {name}'):
            for key in spec.keys() - {'name', 'args', 'sd'}:
                raise unknown('key', key, ('name', 'args'))
            return self.classes[name](**check_args(self.classes[name], {**own, **(args or {})}))


# --- coordinates -----------------------------------------------------------------------------------


def make_coord(shape: Sequence[int], ranges: Sequence | None = None, flatten: bool = True) -> torch.Tensor:
    """Coordinates of the pixel centres of a grid, each axis spanning [-1, 1] or its `ranges` entry.

    Returns (prod(shape), len(shape)) if `flatten`, else (*shape, len(shape)); float32, in the axes' order.
    """
    axes = []
    for i, n in enumerate(shape):
        v0, v1 = (-1, 1) if ranges is None else ranges[i]
        r = (v1 - v0) / (2 * n)
        axes.append(v0 + r + (2 * r) * torch.arange(n).float())
    coord = torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)
    return coord.view(-1, coord.shape[-1]) if flatten else coord


def axis_coords(size: Sequence[int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Coordinates of the pixel centres along each axis of an image of `size` (H, W): [(H,), (W,)], on the CPU."""
    return [make_coord([n])[:, 0].to(dtype) for n in size]


def to_float(colours: torch.Tensor) -> torch.Tensor:
    """8-bit colours (uint8) as float32 in [0, 1]; those of other types are so already and stay as they are."""
    return colours.float().div(255) if colours.dtype == torch.uint8 else colours


def to_pixel_samples(img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (3, H, W) as coordinates (H*W, 2) and colours (H*W, 3), row by row."""
    return make_coord(img.shape[-2:]), img.reshape(img.shape[0], -1).permute(1, 0)


# --- metrics ---------------------------------------------------------------------------------------

SSIM_ROWS = 256  # computed at a time
LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)  # Y of ITU-R BT.601, from 16/255 (black) to 235/255 (white)


class TooSmall(UserError):
    """An image of which a benchmark's convention compares nothing."""


def luma(img: torch.Tensor) -> torch.Tensor:
    """Y, (..., 1, H, W), of an RGB image (..., 3, H, W) in [0, 1]."""
    return 16 / 255 + (img * img.new_tensor(LUMA).view(3, 1, 1)).sum(dim=-3, keepdim=True)


def scored_pixels(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None,
                  scale: float = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of two images (..., C, H, W) that a benchmark's convention compares.

    None: everything; 'benchmark' (Set5, Set14, B100, Urban100): Y, without a border of `scale` pixels;
    'div2k': RGB, without `scale` + 6 pixels. A border that is not whole is rounded up.
    """
    if dataset is None:
        return sr, hr
    if dataset not in ('benchmark', 'div2k'):
        raise unknown('convention', dataset, ('benchmark', 'div2k'))
    shave = math.ceil(scale) + (6 if dataset == 'div2k' else 0)
    if min(hr.shape[-2:]) <= 2 * shave:
        raise TooSmall(f'a {hr.shape[-2]}x{hr.shape[-1]} image has nothing left without its border of {shave} pixels')
    if dataset == 'benchmark' and hr.shape[-3] == 3:
        sr, hr = luma(sr), luma(hr)
    return sr[..., shave:-shave, shave:-shave], hr[..., shave:-shave, shave:-shave]


def parse_eval_type(eval_type: str | None) -> dict:
    """The arguments of `calc_psnr` for 'div2k-4' or 'benchmark-2.5'; None compares everything."""
    if eval_type is None:
        return {}
    convention, _, number = eval_type.partition('-')
    try:
        scale = float(number)
    except ValueError:
        scale = math.nan
    if convention not in ('div2k', 'benchmark') or not 1 <= scale < math.inf:
        raise UserError(f'eval_type must be div2k-SCALE or benchmark-SCALE, not {eval_type!r}; a scale is 1 or more')
    return {'dataset': convention, 'scale': scale}


def calc_psnr(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1,
              rgb_range: float = 1) -> torch.Tensor:
    """PSNR in dB, a 0-d tensor, inf where all is equal, of images (..., C, H, W) or samples of any one shape.

    `rgb_range`: the value of white. `dataset` and `scale` choose the pixels: `scored_pixels`.
    """
    sr, hr = scored_pixels(sr / rgb_range, hr / rgb_range, dataset, scale)
    return -10 * torch.log10((sr - hr).pow(2).mean())


def calc_ssim(sr: torch.Tensor, hr: torch.Tensor, dataset: str | None = None, scale: float = 1,
              rgb_range: float = 1) -> torch.Tensor:
    """SSIM (Wang et al. 2004), a 0-d tensor, of images (B, C, H, W) on the pixels that `calc_psnr` compares.

    Gaussian window of 11x11, sigma 1.5, where it fits entirely; the mean over pixels and channels.
    """
    x, y = scored_pixels(sr / rgb_range, hr / rgb_range, dataset, scale)
    h, w = x.shape[-2:]
    if min(h, w) < 11:
        raise UserError(f'SSIM needs 11x11 pixels, not {h}x{w}')
    taps = torch.exp(-(torch.arange(11, dtype=x.dtype, device=x.device) - 5) ** 2 / (2 * 1.5 ** 2))
    taps = taps / taps.sum()

    def blur(x):
        x = x.flatten(0, 1).unsqueeze(1)
        return F.conv2d(F.conv2d(x, taps.view(1, 1, 11, 1)), taps.view(1, 1, 1, 11))

    def total(x, y):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01 ** 2, 0.03 ** 2
        return ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).sum()

    bands = [slice(top, top + SSIM_ROWS + 10) for top in range(0, h - 10, SSIM_ROWS)]  # memory for a few rows
    sums = torch.stack([total(x[..., band, :], y[..., band, :]) for band in bands])
    return sums.sum() / (x[..., 0, 0].numel() * (h - 10) * (w - 10))


# --- output ---------------------------------------------------------------------------------------------------------


def to_json(value: typing.Any, indent: int | None = None) -> str:
    """`value` as JSON that every program reads: of numbers that are not finite it knows none, they become null."""
    def known(value):
        if isinstance(value, dict):
            return {k: known(v) for k, v in value.items()}
        if isinstance(value, list):
            return [known(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(known(value), indent=indent, allow_nan=False)


def say(text: str) -> None:
    """Prints `text`, once in a job of several processes."""
    if os.environ.get('RANK', '0') == '0':
        print(text)


def number_text(value: float, digits: int = 4, sign: str = '') -> str:
    """A measured `value` as tables have it: a word where it is not finite."""
    if math.isnan(value):
        return 'none'
    return f'{value:{sign}.{digits}f}'.replace('inf', 'infinite')


def time_text(seconds: float) -> str:
    """A duration to read: 1.5h, 12.0m or 7.3s."""
    for unit, length in (('h', 3600), ('m', 60)):
        if seconds >= length:
            return f'{seconds / length:.1f}{unit}'
    return f'{seconds:.1f}s'
