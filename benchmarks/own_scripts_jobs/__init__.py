"""Small scripts with known curves that report as public scripts do, and the jobs that tune them."""
