"""Ways of keeping the replicas of a model in step, one file a family."""
