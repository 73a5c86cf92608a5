//! A worker that has done hundreds of segments is as it was after the first few.

use headwater_tests::bench::endurance;

#[test]
fn hundreds_of_segments_leave_no_handle_and_no_thread_behind_and_lose_no_frame() {
    let folder = tempfile::tempdir().unwrap();
    let endured = endurance::run(folder.path(), 300).unwrap();
    assert_eq!((endured.handles, endured.threads), (0, 0), "{endured:?}");
    // So few segments say little of a slow leak; one of a whole segment's pictures shows.
    assert!(endured.kib_per_thousand < 16.0 * 1024.0, "{endured:?}");
}

#[test]
fn a_slope_is_what_a_line_has() {
    let line: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), 3.0 * f64::from(x) + 7.0)).collect();
    assert!((endurance::slope(&line) - 3.0).abs() < 1e-9);
}
