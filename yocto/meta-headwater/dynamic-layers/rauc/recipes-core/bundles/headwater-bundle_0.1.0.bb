SUMMARY = "Update for boards of a Headwater fleet"
DESCRIPTION = "A signed RAUC bundle of headwater-image, for `headwater update`. Installed only on boards whose HEADWATER_COMPATIBLE \
is the same."
SECTION = "images"
LICENSE = "MIT"

# Everything in it comes from the image.
SRC_URI = ""

inherit bundle headwater_settings

RAUC_BUNDLE_COMPATIBLE = "${HEADWATER_COMPATIBLE}"
RAUC_BUNDLE_VERSION = "${HEADWATER_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "headwater-image for ${MACHINE}"
# Each block is checked as it is read, at the moment of installing: what changed on the disk since the signature was checked is found.
RAUC_BUNDLE_FORMAT = "verity"

RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "headwater-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
# Blocks that the board has already are not written again.
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"

RAUC_KEY_FILE ?= "${HEADWATER_KEYS}/release.key.pem"
RAUC_CERT_FILE ?= "${HEADWATER_KEYS}/release.cert.pem"
RAUC_KEYRING_FILE ?= "${HEADWATER_KEYS}/ca.cert.pem"
