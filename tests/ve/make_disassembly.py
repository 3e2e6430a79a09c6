"""Writes data/disassembly.txt.gz: instruction words and what LLVM's disassembler says of them.

Run by hand where an `llvm-mc` with the VE target is installed (Debian's has it); the tests read the
file only. Words are random ones of every mnemonic, and random bits behind every opcode, of which
LLVM refuses most (an empty text). Words are left out that LLVM's disassembler takes but that its
assembler has no text for: it ignores what it does not know of some fields.
"""

import gzip
import random
import subprocess
import sys
from pathlib import Path

from encoding import FORM_OF, INTEGER_CONDITIONS, VIX, Pools, fields, random_word, specs

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


def undefined(word: int) -> bool:
    """An immediate as z operand of an address or branch; an integer condition of NaN."""
    f = fields(word)
    form, operands = FORM_OF.get(f.opcode, ("", ""))
    if form in ("relative", "branch") and f.opcode != 0x1C:
        integers = f.opcode != 0x18 or f.cx2 == 0
        if integers and f.m not in INTEGER_CONDITIONS:
            return True
    address = form.startswith("v_") and f.opcode >> 4 in (8, 9, 0xA, 0xB, 0xC, 0xD)
    address &= f.opcode & 15 < 4
    return (address or "imm" in operands) and not f.cz and f.sz != 0


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
    words = [word for word in words if not undefined(word)]
    lines = [f"{word:016x} {disassemble(word)}".rstrip() for word in words]
    with gzip.GzipFile(DATA, "wb", mtime=0) as file:
        file.write("\n".join(lines).encode() + b"\n")
    refused = sum(len(line) == 16 for line in lines)
    sys.stdout.write(
        f"{len(lines)} words, {refused} of them refused; {DATA.stat().st_size} bytes\n"
    )


if __name__ == "__main__":
    main()
