"""What training is made of, beside the loop in stages/train.py."""
