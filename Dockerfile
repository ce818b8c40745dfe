# docker build -t cbam3d . && docker run --rm -v "$PWD:/work" cbam3d train --config folder --data.root videos
# With a GPU: docker run --rm --gpus all --shm-size 2g … (PyTorch brings CUDA; the host needs only the NVIDIA driver.)
# A page in the browser: docker run --rm -p 7860:7860 -v "$PWD:/work" cbam3d serve runs/probe --host 0.0.0.0
# Where the folder belongs to another user than 1000, add --user "$(id -u)".
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE /src/
COPY cbam3d /src/cbam3d
COPY configs /src/configs
COPY datasets /src/datasets
RUN pip install "/src[serve,explain,export]" && rm -rf /src && useradd --uid 1000 --create-home user

USER 1000
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["cbam3d"]
CMD ["--help"]
