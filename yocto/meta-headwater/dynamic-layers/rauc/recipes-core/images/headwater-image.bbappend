IMAGE_INSTALL:append = " headwater-agent-slots headwater-rauc-conf rauc"

# It marks a slot good as soon as it has booted. Here a slot is good when the agent is connected and a probe has passed,
# and the agent's update guard says so.
BAD_RECOMMENDATIONS += "rauc-mark-good"

# Blocks of 4 KiB at the same places in every build: most of them are then those the board has already.
IMAGE_ROOTFS_ALIGNMENT = "4"
# ext4 is an override while that type is made.
# nooelint: oelint.vars.specific
EXTRA_IMAGECMD:append:ext4 = " -E hash_seed=86ca73ff-7379-40bd-a098-fcb03a6e719d"
