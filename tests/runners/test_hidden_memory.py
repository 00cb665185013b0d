"""Secrets in the memory of a process are hidden from others of the same user."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

import odc_openeo
from odc_openeo.config import child_environment
from odc_openeo.runners import hidden_memory
from tests.support.ordinary_user import find_python_of_all

ROOT = Path(odc_openeo.__file__).parents[1]
READ = """
import os, sys
for name in ("environ", "mem", "fd", "maps"):
    path = f"/proc/{sys.argv[1]}/{name}"
    try:
        os.listdir(path) if name == "fd" else open(path, "rb").read(name != "mem")
        print(name)
    except OSError:
        pass
"""
PROGRAM = f"""
import os, runpy, subprocess, sys
hide_memory = runpy.run_path({hidden_memory.__file__!r})["hide_memory"]
def read():
    return subprocess.check_output([sys.executable, "-c", {READ!r}, str(os.getpid())], text=True)
before = read()
hide_memory()
in_fork = os.fork()
if in_fork == 0:
    sys.exit(read() != "")
assert os.waitpid(in_fork, 0)[1] == 0
assert os.listdir("/proc/self/fd")
print(before.split(), read().split())
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or find_python_of_all([ROOT / "odc_openeo"]) is None,
    reason="needs root, and a Python and a clone that other users can reach",
)
def test_an_ordinary_user_reads_nothing_of_its_other_processes():
    nobody = pwd.getpwnam("nobody")
    output = subprocess.check_output(
        [find_python_of_all([ROOT / "odc_openeo"]) or "", "-B", "-c", PROGRAM],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        cwd="/",
        env=child_environment(HOME="/"),
        text=True,
    )
    assert output == "['environ', 'mem', 'fd', 'maps'] []\n"
