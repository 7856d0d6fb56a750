"""The checks of `benchmarks.device_check`, one file each, and what runs them."""
