"""What meshd says about itself: logs and metrics."""
