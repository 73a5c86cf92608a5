CORE_IMAGE_BASE_INSTALL = "packagegroup-core-boot packagegroup-base-extended ${CORE_IMAGE_EXTRA_INSTALL}"
CORE_IMAGE_EXTRA_INSTALL ?= ""
IMAGE_INSTALL ?= "${CORE_IMAGE_BASE_INSTALL}"
inherit image
