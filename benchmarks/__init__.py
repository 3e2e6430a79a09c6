"""Speed against other compilers, always as a ratio inside one run. Not part of the package."""
