deltask do_package
PACKAGES = ""
