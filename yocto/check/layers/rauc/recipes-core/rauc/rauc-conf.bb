SUMMARY = "RAUC system configuration & verification keyring"
LICENSE = "MIT"
RPROVIDES:${PN} += "virtual-rauc-conf"
