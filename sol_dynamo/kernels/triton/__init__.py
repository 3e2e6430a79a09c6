"""The GPU target: one Triton kernel for each kernel of the loop IR."""
