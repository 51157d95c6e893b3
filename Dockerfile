# The gateway: `docker build -t purify:0.1.0 .`, and docs/deploy.md on how to run it.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/purify
ENV PATH=/opt/purify/bin:$PATH
COPY constraints.txt .
# A layer of its own: torch is most of the image, and changes least.
RUN pip install --no-cache-dir -c constraints.txt torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE zzz_purify.pth ./
COPY purify_plugins purify_plugins
COPY adapters adapters
COPY hooks hooks
RUN pip install --no-cache-dir -c constraints.txt '.[tgi]' && pip uninstall --yes pip
# torch's headers, tests and compilers are for those who build against it: 195 MB.
WORKDIR /opt/purify/lib/python3.12/site-packages/torch
RUN rm -rf include test && find bin -type f ! -name torch_shm_manager -delete

FROM python:3.12-slim
COPY --from=build /opt/purify /opt/purify
ENV PATH=/opt/purify/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
# By its number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["purify"]
CMD ["serve", "--config", "/etc/purify/purify.toml", "--host", "0.0.0.0"]
