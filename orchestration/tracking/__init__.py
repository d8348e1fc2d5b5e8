"""Live trackers: TensorBoard, MLflow, W&B (trackers.py), their options (settings.py), and their threads (delivery.py)."""
