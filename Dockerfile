# A trained model behind a server, or any other command of mrkd.
#
#   docker build -t mrkd .                                        # for CPUs
#   docker build -t mrkd --build-arg TORCH=cuda .                 # for NVIDIA's GPUs
#   docker run -p 8000:8000 -v "$PWD/results:/work/results" mrkd serve results/train --host 0.0.0.0
FROM python:3.12-slim-bookworm

# cpu: PyTorch's own packages without CUDA, 4 GB smaller; cuda: the default ones.
ARG TORCH=cpu
# What the image is for; see docs/how-to/install.md.
ARG EXTRAS=onnx,formats,serve
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

WORKDIR /opt/mrkd
RUN if [ "$TORCH" = cpu ]; then \
      pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY mrkd_ray mrkd_ray
RUN pip install ".[${EXTRAS}]" && useradd --create-home mrkd && install -d -o mrkd /work

USER mrkd
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["mrkd"]
CMD ["--help"]
