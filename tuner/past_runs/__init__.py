"""Reads curves that other tools stored (TensorBoard, Weights & Biases, MLflow, CSV) as past runs of a job."""
