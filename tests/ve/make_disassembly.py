"""Writes data/disassembly.txt.gz: instruction words and what LLVM's disassembler says of them.

Run by hand where an `llvm-mc` with the VE target is installed (Debian's has it); the tests read the
file only. Words are random ones of every mnemonic, and random bits behind every opcode, of which
LLVM refuses most (an empty text).
"""

import gzip
import random
import subprocess
import sys
from pathlib import Path

from encoding import VIX, Pools, random_word, specs

DATA = Path(__file__).with_name("data") / "disassembly.txt.gz"
OF_MNEMONIC, OF_OPCODE = 9, 16


def disassemble(word: int) -> str:
    """LLVM's text of a word, or ""; one process each, as it loses its place after a bad word."""
    text = " ".join(f"0x{b:02x}" for b in word.to_bytes(8, "little"))
    run = subprocess.run(
        ["llvm-mc", "-triple=ve", "-disassemble"], input=text, capture_output=True, text=True
    )
    if "warning" in run.stderr or "error" in run.stderr:
        return ""
    lines = [line.strip() for line in run.stdout.splitlines() if line.strip() != ".text"]
    return lines[0].replace("\t", " ") if lines else ""


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
    lines = [f"{word:016x} {disassemble(word)}".rstrip() for word in words]
    with gzip.GzipFile(DATA, "wb", mtime=0) as file:
        file.write("\n".join(lines).encode() + b"\n")
    refused = sum(len(line) == 16 for line in lines)
    sys.stdout.write(
        f"{len(lines)} words, {refused} of them refused; {DATA.stat().st_size} bytes\n"
    )


if __name__ == "__main__":
    main()
