"""Parts of `benchmarks.fuzz`: what is valid, what is hostile, and the families of cases."""
