"""`python -m mrkd_ray` is `mrkd`."""

from mrkd_ray.cli.main import main

if __name__ == "__main__":
    main()
