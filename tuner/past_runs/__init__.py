"""Reads learning curves that other tools logged (TensorBoard, Weights & Biases, MLflow, CSV) as past runs."""
