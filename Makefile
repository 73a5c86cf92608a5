# Headwater's door. Every target installs what it needs on Debian 12 or newer, as root or with sudo.
#
#   make demo [INPUT=clip.mp4] [OUT=folder] [WAIT=0]   a broker, a gateway, two agents, one clip, HLS to watch
#   make test                                          every test
#   make vm-test                                       V4L2 on the kernel's virtual codec, in an emulated machine
#   make packages [ARCH=amd64|arm64|armhf|all]         .deb files in target/packages/ARCH/debs
#   make packages-test [ARCH=amd64|arm64|all]          them, in booted Debian 12 and 13 systems; arm64 in emulation
#   make packages-repro [ARCH=amd64]                   two builds in two folders, compared byte for byte
#   make bench [ONLY=engine] [QUICK=1]                 the table of promises, and target/bench.json
#   make check                                         formatting, lints, licences, documents
#   make yocto-check                                   the Yocto layer: lists, style, BitBake's parser, contracts
#   make yocto-crates                                  writes the layer's lists of crates anew, after Cargo.lock has changed
#   make build                                         release binaries in target/release
#   make cross TARGET=arm64 [FLOOR=current|old]        release binaries for a board in target/cross/TARGET/FLOOR/bin
#   make image                                         a disk image for arm64 boards, and its bundle, in target/image
#   make image-test [ONLY=...] [SHORT=1]               that image on an emulated board: updates, power cuts, jobs
#   make test-arm64 [FLOOR=...] [SUITE=bookworm]       tests of protocol, agent and worker for arm64, emulated

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help build cross image bundle image-test demo test test-arm64 vm-test packages packages-test packages-repro \
	bench check yocto-check yocto-crates fmt clean

INPUT ?= tests/media/bbb-720p25-5s.mp4
OUT ?= target/demo/hls
WAIT ?= 1
TARGET ?= arm64
FLOOR ?= current
SUITE ?= bookworm
# By environment, so that a name may hold spaces, quotes and dollar signs.
export INPUT OUT WAIT ONLY
# Who signs bundles, and whom the image trusts; and how much of what takes long `make image-test` does.
export KEY CERT CA IMAGE_VERSION SHORT MINUTES CUTS IDLE_MINUTES SEED FIRMWARE
# Where rustup puts them; not every shell's path has it.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Where the home folder is read-only, cargo keeps its downloads in the target folder.
CARGO := ./tests/cargo.sh

help:
	@sed -n 's/^#   //p' Makefile

setup-%:
	@./tests/setup.sh $*

build: setup-build
	@$(CARGO) build --release --locked --workspace --bins

demo: setup-demo
	@$(CARGO) build --release --locked --workspace --bins
	@exec "$${CARGO_TARGET_DIR:-target}/release/headwater-demo" --input "$$INPUT" --out "$$OUT" --wait "$$WAIT"

test: setup-test
	@$(CARGO) build --locked --workspace --bins
	@$(CARGO) build --locked --package headwater-stub
	@$(CARGO) test --locked --workspace --no-fail-fast

cross: setup-cross
	@./cross/build.sh '$(TARGET)' '$(FLOOR)'

image: setup-image
	@./cross/image/programs.sh
	@./cross/image/build.sh "$${CARGO_TARGET_DIR:-target}/image"

# Made together: an update brings what a flashed card has.
bundle: image

# Where the network or emulation is missing it says so, and is no failure.
image-test:
	@target="$${CARGO_TARGET_DIR:-target}"; ./cross/image/ready.sh "$$target" || exit 0; \
		$(MAKE) --no-print-directory image && \
		$(CARGO) build --locked --workspace --bins && \
		HEADWATER_IMAGE="$$target/image" exec "$$target/debug/headwater-image-test"

# What emulation of programs cannot: trace a process; say that a program to be started is not there; in a namespace
# with one user, be another.
test-arm64: setup-test-arm64
	@./cross/test.sh arm64 '$(FLOOR)' '$(SUITE)' --no-fail-fast \
		-p headwater-protocol -p headwater-agent -p headwater-scaler -p headwater-pipelines \
		-- --skip a_worker_that_not_even_sigkill_ends --skip a_program_that_is_not_there_cannot_be_run \
		--skip other_users_are_refused_by_the_helper

vm-test: setup-vm
	@$(CARGO) build --locked -p headwater-pipelines --bins --example v4l2_chains
	@machine=$$(./tests/vm/build.sh "$${CARGO_TARGET_DIR:-target}/vm") && \
		HEADWATER_VM="$$machine" $(CARGO) test --locked -p headwater-tests --test virtual_codec

# Read here and not in the recipe: the machine's own architecture is the default.
ARCH ?= $(shell dpkg --print-architecture)
packages: setup-packages
	@target="$${CARGO_TARGET_DIR:-target}/packages"; arches='$(ARCH)'; [ "$$arches" != all ] || arches='amd64 arm64'; \
	for arch in $$arches; do \
		{ [ $$arch = "$$(dpkg --print-architecture)" ] || ./tests/setup.sh packages-emulated; } && \
		./cross/packages/build.sh $$arch "$$target/$$arch" && \
		./cross/packages/pack.sh $$arch "$$target/$$arch/bin" "$$target/$$arch/debs" || exit 1; \
	done

packages-test: packages
	@target="$$(realpath "$${CARGO_TARGET_DIR:-target}")/packages"; own="$$target/$$(dpkg --print-architecture)/debs"; \
	arches='$(ARCH)'; [ "$$arches" != all ] || arches='amd64 arm64'; \
	for arch in $$arches; do \
		if [ $$arch = "$$(dpkg --print-architecture)" ]; then \
			HEADWATER_PACKAGES="$$own" HEADWATER_SUITES="bookworm trixie" \
				$(CARGO) test --locked -p headwater-tests --test packages || exit 1; \
		else \
			[ -d "$$own" ] || own=""; ./cross/packages/emulated.sh $$arch "$$target/$$arch/debs" "$$own" || exit 1; \
		fi; \
	done

packages-repro: setup-packages
	@[ '$(ARCH)' = "$$(dpkg --print-architecture)" ] || ./tests/setup.sh packages-emulated
	@./cross/packages/repro.sh $(ARCH) "$${CARGO_TARGET_DIR:-target}/packages/repro"

bench: setup-bench
	@$(CARGO) build --release --locked --workspace --bins
	@exec "$${CARGO_TARGET_DIR:-target}/release/headwater-bench"

check: setup-build
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@./tests/deny.sh
	@./tests/invariants.sh

yocto-check: setup-yocto
	@./yocto/check.sh

yocto-crates:
	@./yocto/scripts/crates.py

fmt:
	@$(CARGO) fmt --all

clean:
	@$(CARGO) clean
