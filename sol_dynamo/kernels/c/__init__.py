"""The C target: loop nests as vectorized C, one native call per program."""
