"""Writes data/disassembly.txt.gz: instruction words and what LLVM's disassembler says of them.

Run by hand where an `llvm-mc` with the VE target is installed (Debian's has it); the tests read the
file only. Words are random ones of every mnemonic, and random bits behind every opcode, of which
LLVM refuses most (an empty text).
"""

import gzip
import random
import re
import subprocess
import sys
from pathlib import Path

from encoding import VIX, Pools, random_word, specs

DATA = Path(__file__).with_name("data") / "disassembly.txt.gz"
OF_MNEMONIC, OF_OPCODE = 9, 16


def disassemble(words: list[int]) -> list[str]:
    """LLVM's text of each word; "" where there is none."""
    text = "\n".join(" ".join(f"0x{b:02x}" for b in w.to_bytes(8, "little")) for w in words)
    run = subprocess.run(
        ["llvm-mc", "-triple=ve", "-disassemble"], input=text, capture_output=True, text=True
    )
    bad = {int(line) for line in re.findall(r"<stdin>:(\d+):1: warning", run.stderr)}
    good = iter(line.strip() for line in run.stdout.splitlines() if line.strip() != ".text")
    texts = ["" if i in bad else next(good).replace("\t", " ") for i in range(1, len(words) + 1)]
    assert next(good, None) is None
    return texts


def main() -> None:
    rng = random.Random(17)
    registers, vectors, masks = list(range(64)), [*range(64), VIX], list(range(1, 16))
    pools = Pools(registers, registers, vectors, vectors, masks, masks,
                  registers, registers, registers, registers, vectors)  # fmt: skip
    words = [random_word(spec, rng, pools) for spec in specs().values() for _ in range(OF_MNEMONIC)]
    for opcode in range(256):
        for i in range(OF_OPCODE):
            bits = rng.getrandbits(56)
            if i % 2:  # sparse: more of these are instructions
                bits &= rng.getrandbits(56) & rng.getrandbits(56)
            words.append(opcode << 56 | bits)
    lines = [f"{w:016x} {t}".rstrip() for w, t in zip(words, disassemble(words), strict=True)]
    with gzip.GzipFile(DATA, "wb", mtime=0) as file:
        file.write("\n".join(lines).encode() + b"\n")
    refused = sum(len(line) == 16 for line in lines)
    sys.stdout.write(f"{len(lines)} words, {refused} of them refused; {DATA.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
