"""Live trackers: TensorBoard, MLflow, W&B (trackers.py), their options (settings.py) and threads (delivery.py)."""
