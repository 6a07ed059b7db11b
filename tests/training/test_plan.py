import json
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
import tiny
import torch
from in_process import run_command
from test_distributed_start import start  # noqa: F401
