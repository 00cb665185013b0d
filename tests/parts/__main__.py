"""Look longer for parts that differ from the whole: ``python -m tests.parts --examples 200``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the test of random graphs with more examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    options = parser.parse_args()
    test = Path(__file__).parent / "test_random_graphs.py"
    command = [sys.executable, "-m", "pytest", "-n", "0", "--timeout", "0", str(test)]
    return subprocess.run(command, env={**os.environ, "EXAMPLES": str(options.examples)}).returncode


if __name__ == "__main__":
    sys.exit(main())
