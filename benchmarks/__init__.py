"""Measurements of mrkd_ray beside what people use today: `python -m benchmarks [NAME ...]`."""
