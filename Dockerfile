# headrace with what it needs on a cluster: training, Ray, object stores, the viewer, metrics. Build it in this folder:
#     docker build -t headrace .
FROM python:3.12-slim-bookworm
# wget: KubeRay asks a node with it whether it lives.
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 headrace
WORKDIR /opt/headrace
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[train,ray,cloud,view,metrics]'
USER headrace
WORKDIR /home/headrace
ENV PYTHONUNBUFFERED=1
CMD ["headrace", "--help"]
