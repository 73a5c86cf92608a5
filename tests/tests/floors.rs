//! `cross/floor.sh` says what keeps a binary from running on a floor's oldest systems. Here it meets libraries made
//! for the purpose, each with one thing too new, and one that has none.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Compiles a library of nothing but `code`.
    fn linked(&self, name: &str, code: &str, options: &[&str]) -> PathBuf {
        let (source, library) = (self.path("library.c"), self.path(name));
        std::fs::write(&source, code).unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-nostdlib", "-o"])
            .args([&library, &source])
            .args(options)
            .current_dir(self.0.path())
            .status();
        assert!(status.expect("a C compiler is installed").success());
        library
    }

    /// A library that calls `function`, wherever that comes from.
    fn caller(&self, function: &str, options: &[&str]) -> PathBuf {
        let code = format!("extern void {function}(void); void call(void) {{ {function}(); }}");
        self.linked("caller.so", &code, options)
    }
}

/// What the check says of a binary, empty where it runs on the floor.
fn verdict(floor: &str, binary: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cross/floor.sh");
    let output = Command::new(script).arg(floor).arg(binary).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), text.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim_end().to_owned()
}

#[test]
fn a_binary_within_both_floors_passes() {
    let workshop = Workshop::new();
    let binary = workshop.caller("gst_element_factory_make", &[]);
    for floor in ["current", "old"] {
        assert_eq!(verdict(floor, &binary), "");
    }
}

#[test]
fn a_function_that_the_floors_gstreamer_lacks_is_named() {
    let workshop = Workshop::new();
    let binary = workshop.caller("gst_element_factory_make_full", &[]);
    assert_eq!(verdict("current", &binary), "");
    assert_eq!(
        verdict("old", &binary),
        "floor: caller.so calls gst_element_factory_make_full of 1.20.0; floor old has 1.16.2"
    );
}

#[test]
fn a_function_that_the_floors_glib_lacks_is_named() {
    let workshop = Workshop::new();
    let binary = workshop.caller("g_ptr_array_new_null_terminated", &[]);
    for floor in ["current", "old"] {
        assert!(verdict(floor, &binary).contains("calls g_ptr_array_new_null_terminated"), "{floor}");
    }
}

#[test]
fn a_function_that_no_known_version_has_is_named() {
    let workshop = Workshop::new();
    let binary = workshop.caller("gst_of_tomorrow", &[]);
    assert!(
        verdict("current", &binary).contains("gst_of_tomorrow, which cross/floors/symbols does not know")
    );
}

#[test]
fn a_newer_c_library_is_named() {
    let workshop = Workshop::new();
    std::fs::write(workshop.path("versions"), "GLIBC_2.33 { newer; }; GLIBC_2.36 { newest; };").unwrap();
    workshop.linked(
        "libc.so.6",
        "void newer(void) {} void newest(void) {}",
        &["-Wl,-soname,libc.so.6", "-Wl,--version-script=versions"],
    );
    let binary = workshop.caller("newer", &["libc.so.6"]);
    assert_eq!(verdict("current", &binary), "");
    assert_eq!(verdict("old", &binary), "floor: caller.so wants glibc 2.33; floor old has 2.31");
    let binary = workshop.caller("newest", &["libc.so.6"]);
    assert_eq!(verdict("current", &binary), "floor: caller.so wants glibc 2.36; floor current has 2.35");
}

#[test]
fn a_library_that_the_floor_does_not_have_is_named() {
    let workshop = Workshop::new();
    workshop.linked("libssl.so.3", "void newer(void) {}", &["-Wl,-soname,libssl.so.3"]);
    let binary = workshop.caller("newer", &["libssl.so.3"]);
    assert_eq!(verdict("current", &binary), "");
    assert_eq!(
        verdict("old", &binary),
        "floor: caller.so wants libssl.so.3, which floor old does not count on"
    );
}
