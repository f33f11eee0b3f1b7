"""What demo.py does: finds and enlarges pictures, and makes comparisons, maps of weights and films."""
