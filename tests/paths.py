"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # of this repository
CONFIGS = ROOT / 'configs'
SHARED = ROOT.parent / 'shared'  # test images, and outputs of the authors' code: not in the repository
