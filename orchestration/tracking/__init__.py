"""Live trackers: TensorBoard, MLflow, W&B."""
