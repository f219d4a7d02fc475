"""How much memory a process needs to decode a file, measured in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import re, sys
from pathlib import Path
from lesion.core.errors import ImageError
from lesion.data.inspection import examine
from lesion.imaging.decode import decode

def kib(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def result(path):
    try:
        data = Path(path).read_bytes()
        if sys.argv[3] == "decode":
            return "x".join(map(str, decode(data).shape[:2]))
        record = examine(data)
        return f"{record.height}x{record.width}"
    except ImageError as error:
        return error.code

result(sys.argv[1])  # modules and tables that are loaded once
Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value
before = kib("VmRSS")
answer = result(sys.argv[2])
print(answer, kib("VmHWM") - before)
"""


def decode_in_child(data: bytes, folder: Path, warm_up: bytes, how: str = "decode") -> tuple[str, int]:
    """Decode a file in a child process; return the refusal's code or height x width, and the growth in bytes.

    The child decodes or examines (``how``) ``warm_up`` first, a small file of the same kind.
    """
    files = [folder / "warm_up", folder / "file"]
    for file, content in zip(files, (warm_up, data), strict=True):
        file.write_bytes(content)
    # glibc returns freed blocks of 1 MiB at once, as in the server's processes
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-c", _PROGRAM, *map(str, files), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    answer, growth = done.stdout.split()
    return answer, int(growth) * 1024
