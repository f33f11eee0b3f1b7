"""The page that `test.py --report out/` writes: tables, charts, and pictures to compare with bicubic and the truth.

It is a single, self-contained file that can be mailed or archived: charts are inline SVG, pictures are data URIs.
"""

import base64
import datetime
import io
import json
import math
import platform
import re
import shlex
import sys
from pathlib import Path

import jinja2
import matplotlib
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from devices import device_name
from errors import UserError
from files import atomic_write, make_place
from pictures.modes import to_picture
from pictures.sheets import centre_box
from utils import number_text

SIDE = 512  # pixels: only the central part of larger images is shown
BUDGET = 11 << 20  # bytes of all pictures; base64 makes them a third longer

# Colours in which charts are drawn, and their replacements in the page, which follow its light or dark theme.
INK, LINE, BICUBIC, OURS = '#010101', '#020202', '#030303', '#040404'
THEME = {INK: 'currentColor', LINE: 'var(--line)', BICUBIC: 'var(--muted)', OURS: 'var(--accent)'}
CHART = {'svg.fonttype': 'none', 'font.size': 11, 'text.color': INK, 'axes.labelcolor': INK, 'axes.edgecolor': LINE,
         'xtick.color': INK, 'ytick.color': INK, 'xtick.major.size': 0, 'ytick.major.size': 0, 'grid.color': LINE,
         'axes.grid': True, 'axes.axisbelow': True, 'axes.spines.top': False, 'axes.spines.right': False}


class Report:
    """Collects the results of `evaluate` for a model and for bicubic, config by config, and writes them to `folder`.

    `keep_ours` and `keep_bicubic` are called with each image during evaluation; `add` then takes the numbers.
    """

    def __init__(self, folder):
        if Path(folder).is_file():
            raise UserError(f'--report {folder}: is a file; name a folder to write to')
        self.path = Path(folder) / 'index.html'
        make_place(self.path)
        self.sets, self.images, self.kept, self.kept_bicubic = [], [], [], []

    def keep_ours(self, scored):
        size = scored.gt.shape[:0:-1]  # width, height
        self.kept.append({'full_size': tuple(size), 'ours': picture(scored.pred), 'truth': picture(scored.gt)})

    def keep_bicubic(self, scored):
        self.kept_bicubic.append(picture(scored.pred))

    def add(self, ours, bicubic):
        """Adds the two results of `evaluate` on one config, whose images have been kept."""
        where = {'config': ours['name'], 'scale': ours['scale'], 'data': data_key(ours['keys']['test_dataset'])}
        self.sets.append({**where, **side_by_side(ours, bicubic), 'count': len(ours['images']),
                          'yaml': yaml.safe_dump(ours['keys'], sort_keys=False)})
        rows = zip(ours['images'], bicubic['images'], self.kept, self.kept_bicubic, strict=True)
        for row, bicubic_row, kept, kept_bicubic in rows:
            self.images.append({**where, **side_by_side(row, bicubic_row), 'image': row['image'],
                                'pictures': {**kept, 'bicubic': kept_bicubic}})
        self.kept, self.kept_bicubic = [], []

    def write(self, model, path, device):
        """Writes the page for `model`, which was loaded from `path` and ran on `device`; returns the page's path."""
        fit([image['pictures'] for image in self.images])
        templates = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                       trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        templates.filters['data_uri'] = lambda data: f'data:image/webp;base64,{base64.b64encode(data).decode()}'
        templates.filters['number'] = number_text
        page = templates.get_template('report.html.j2').render(
            model=path, run=describe(model, path, device), sets=self.sets, images=self.images, charts=charts(self.sets),
            groups=group(self.images, 'data', 'image'))
        with atomic_write(self.path) as file:
            file.write(page.encode(errors='backslashreplace'))  # file names may not be valid UTF-8
        return self.path


def data_key(spec):
    """What tells one test set, and how its images are reduced, from others; not the scale."""
    args = {key: value for key, value in (spec['wrapper'].get('args') or {}).items() if not key.startswith('scale_')}
    return json.dumps([spec['dataset'], spec['wrapper']['name'], args], sort_keys=True)


def side_by_side(ours, bicubic):
    """The numbers of one row, for a config or an image. If both PSNRs are infinite, the gain is 0."""
    psnr, other = ours['psnr'], bicubic['psnr']
    return {'ours': ours, 'bicubic': bicubic, 'gain': 0. if psnr == other else psnr - other}


def group(rows, *keys):
    """The rows grouped by the values of `keys`: a list of lists, in the order of their first rows."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.values())


# --- pictures ------------------------------------------------------------------------------------------------------


def picture(image):
    """The part of `image`, (3, H, W) in [0, 1], that the page shows, as a WebP file (bytes)."""
    image = to_picture(image, 'RGB' if len(image) == 3 else 'L')
    return webp(image.crop(centre_box(image.size, (SIDE, SIDE))))


def webp(image):
    """`image` as a WebP file (bytes), lossless so that no artefacts of the codec are mistaken for the model's."""
    file = io.BytesIO()
    image.save(file, 'WEBP', lossless=True, method=2, quality=50)
    return file.getvalue()


def fit(pictures):
    """Adds the shown size to each image's `pictures`; crops all by the same factor if they exceed the BUDGET."""
    total = sum(len(p[name]) for p in pictures for name in ('bicubic', 'ours', 'truth'))
    factor = min(1, math.sqrt(BUDGET / total))
    for p in pictures:
        for name in ('bicubic', 'ours', 'truth'):
            image = Image.open(io.BytesIO(p[name]), formats=['WEBP'])
            p['size'] = tuple(max(1, round(n * factor)) for n in image.size)
            if factor < 1:
                p[name] = webp(image.crop(centre_box(image.size, p['size'])))
        p['cropped'] = p['size'] != p['full_size']


# --- charts --------------------------------------------------------------------------------------------------------


def charts(sets):
    """The name and an SVG of PSNR over scale for each dataset that was measured at several scales."""
    known = [row for row in sets if row['scale'] is not None]
    rows = [sorted(rows, key=lambda row: row['scale']) for rows in group(known, 'data') if len(rows) > 1]
    return [(re.sub(r'(?<![^/])test-|-[\d.]+$', '', same[0]['config']), chart(same)) for same in rows]


def chart(rows):
    """PSNR over scale on one dataset, of ours and bicubic, as the text of an <svg> element.

    Points that are not finite are left out, and the curve connects their neighbours.
    """
    scales = [row['scale'] for row in rows]
    with matplotlib.rc_context(CHART):
        figure = Figure(figsize=(5, 3.2), layout='constrained')
        axes = figure.subplots()
        for method, color, style in (('bicubic', BICUBIC, 'o--'), ('ours', OURS, 'o-')):
            points = {row['scale']: row[method]['psnr'] for row in rows if math.isfinite(row[method]['psnr'])}
            axes.plot(list(points), list(points.values()), style, color=color, linewidth=2, markersize=5,
                      label=method.capitalize())
        axes.set(xticks=sorted(set(scales)), xlabel='Scale', ylabel='PSNR (dB)')
        axes.xaxis.set_major_formatter('×{x:g}')
        axes.margins(y=0.15)
        axes.grid(axis='x', visible=False)
        axes.spines['left'].set_visible(False)
        axes.legend(frameon=False, reverse=True)
        file = io.StringIO()
        figure.savefig(file, format='svg', transparent=True,
                       metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    svg = file.getvalue()[file.getvalue().index('<svg'):]
    for color, variable in THEME.items():
        svg = svg.replace(color, variable)
    return re.sub(r'<g id="[^"]*"', '<g', svg)  # all charts have the same ids, but ids must be unique in a page


# --- the run -------------------------------------------------------------------------------------------------------


def describe(model, path, device):
    """What was run, where and when: (term, description) pairs."""
    parts = [type(model).__name__]
    if hasattr(model, 'encoder'):
        parts.append(f'encoder {type(model.encoder).__name__}')
    parts.append(f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters')
    return [
        ('Model', path),
        ('Architecture', ', '.join(parts)),
        ('Command', shlex.join(['python', *sys.argv])),
        ('Device', device_name(device) + ('' if device.type == 'cuda' else f', {torch.get_num_threads()} threads')),
        ('Machine', platform.platform()),
        ('Software', f'PyTorch {torch.__version__}, Python {platform.python_version()}'),
        ('Date', datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z')),
    ]
