# What a build may want to say about its boards. Set in local.conf or in a machine's configuration.

# How the board starts: "grub-efi" makes a disk image with GRUB, two slots and data. Empty: the machine's own way.
HEADWATER_BOOT ??= ""
HEADWATER_BOOT:qemuarm64 ?= "grub-efi"

# A bundle is installed only on boards of the same name.
HEADWATER_COMPATIBLE ??= "headwater-${MACHINE}"

# What the image and its bundle call themselves. A board does not take the version that it runs already, and none older.
HEADWATER_VERSION ??= "${DISTRO_VERSION}"

# ca.cert.pem, release.cert.pem and release.key.pem, made by scripts/keys.sh. Never in a repository.
HEADWATER_KEYS ??= "${TOPDIR}/headwater-keys"

# The partition that holds what outlives updates. On Jetsons the distribution `headwater` adds it; NVIDIA's is "UDA".
HEADWATER_DATA_PARTITION ??= "data"
