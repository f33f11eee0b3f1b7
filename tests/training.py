"""A small project to train in: photos, a tiny config, and ways to call train_liif.py and test.py on it."""

import contextlib
import copy
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordReader

import train_liif

REPOSITORY = Path(__file__).resolve().parents[1]
