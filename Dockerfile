# The image: one static binary and the certificates of the public authorities, from scratch.
#
#   docker build -t s3-log-rollup .
#   docker buildx build --platform linux/amd64,linux/arm64 -t s3-log-rollup .
#
# With --build-arg BINARY=prebuilt nothing is compiled and nothing pulled: the same image is made from
# prebuilt/ARCHITECTURE/s3-log-rollup and prebuilt/ARCHITECTURE/ca-certificates.crt, as .ci/image does it.
ARG BINARY=build

# On the builder's own platform, for the image's: an optimised build under emulation takes hours.
FROM --platform=$BUILDPLATFORM rust:1.94.1-slim-bookworm AS build
ARG TARGETARCH
# zig compiles the C and the assembly of ring and mimalloc for both platforms, with musl's headers.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/zig \
    && /opt/zig/bin/pip install --no-cache-dir cargo-zigbuild==0.24.0 ziglang==0.17.1
# Nothing unwinds: a panic aborts. The tables for it would be a fifteenth of the binary.
ENV PATH=/opt/zig/bin:$PATH \
    RUSTFLAGS="-C force-unwind-tables=no"
WORKDIR /project
RUN case $TARGETARCH in \
        amd64) echo x86_64-unknown-linux-musl >/target ;; \
        arm64) echo aarch64-unknown-linux-musl >/target ;; \
        *) echo "there is no image for ${TARGETARCH:-a builder without BuildKit}" >&2; exit 1 ;; \
    esac \
    && rustup target add "$(cat /target)"
# The dependencies in a layer of their own, which stays while only the sources change.
COPY Cargo.toml Cargo.lock ./
COPY testbed/Cargo.toml testbed/
RUN mkdir src testbed/src \
    && touch src/lib.rs testbed/src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo zigbuild --locked --release --target "$(cat /target)" -p s3-log-rollup --bin s3-log-rollup
COPY src src
# Newer than what was compiled above, whatever their times in the checkout are.
RUN touch src/lib.rs src/main.rs \
    && cargo zigbuild --locked --release --target "$(cat /target)" -p s3-log-rollup --bin s3-log-rollup \
    && mkdir /out \
    && cp "target/$(cat /target)/release/s3-log-rollup" /etc/ssl/certs/ca-certificates.crt /out/

FROM scratch AS prebuilt
ARG TARGETARCH
COPY prebuilt/${TARGETARCH}/ /out/

# hadolint ignore=DL3006
FROM ${BINARY} AS binary

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="s3-log-rollup" \
      org.opencontainers.image.description="Joins S3 server access logs into one object per period, exactly once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binary --chmod=0444 /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=binary --chmod=0555 /out/s3-log-rollup /s3-log-rollup
USER 65532:65532
ENTRYPOINT ["/s3-log-rollup"]
