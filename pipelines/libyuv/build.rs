//! Links Debian's libyuv (`libyuv-dev`). It ships no pkg-config file, so a folder can be named by hand.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBYUV_LIB_DIR");
    if let Some(folder) = std::env::var_os("LIBYUV_LIB_DIR") {
        println!("cargo:rustc-link-search=native={}", folder.to_string_lossy());
    }
    println!("cargo:rustc-link-lib=dylib=yuv");
}
