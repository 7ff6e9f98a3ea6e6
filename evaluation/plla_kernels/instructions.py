import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import triton

_MATRIX = ("HMMA", "HGMMA")
_OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


def instruction_counts(cubin: bytes) -> Counter[str]:
    """How often each machine instruction stands in a compiled kernel, by its name without suffixes."""
    disassembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [str(disassembler), "-c", file.name], capture_output=True, text=True, timeout=120, check=True
        )
    return Counter(_OPCODE.findall(done.stdout))


def matrix_instructions(counts: Counter[str]) -> int:
    """Those that tensor cores carry out, of a warp (HMMA) or of four (HGMMA)."""
    return sum(counts[name] for name in _MATRIX)
