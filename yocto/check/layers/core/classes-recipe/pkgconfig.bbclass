DEPENDS:prepend = "pkgconfig-native "
