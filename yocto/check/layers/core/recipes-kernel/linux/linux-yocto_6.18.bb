SUMMARY = "Linux kernel"
LICENSE = "GPL-2.0-only"
